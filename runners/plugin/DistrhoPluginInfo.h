// What DPF wants to know before it compiles. ASTRAPE_CHANNELS is 1 or 2.
#pragma once

#if ASTRAPE_CHANNELS == 1
#define DISTRHO_PLUGIN_NAME "Astrape Mono"
#define DISTRHO_PLUGIN_URI "urn:astrape:voice-mono"
#define DISTRHO_PLUGIN_CLAP_ID "astrape.voice-mono"
#else
#define DISTRHO_PLUGIN_NAME "Astrape"
#define DISTRHO_PLUGIN_URI "urn:astrape:voice"
#define DISTRHO_PLUGIN_CLAP_ID "astrape.voice"
#endif
#define DISTRHO_PLUGIN_BRAND "astrape"

#define DISTRHO_PLUGIN_NUM_INPUTS ASTRAPE_CHANNELS
#define DISTRHO_PLUGIN_NUM_OUTPUTS ASTRAPE_CHANNELS
#define DISTRHO_PLUGIN_HAS_UI 0
#define DISTRHO_PLUGIN_IS_RT_SAFE 0  // ONNX Runtime is not ours to promise this of
#define DISTRHO_PLUGIN_WANT_LATENCY 1
#define DISTRHO_PLUGIN_WANT_STATE 1
#define DISTRHO_PLUGIN_WANT_FULL_STATE 1
#define DISTRHO_PLUGIN_WANT_PROGRAMS 0
#define DISTRHO_PLUGIN_LV2_CATEGORY "lv2:PitchPlugin"
#define DISTRHO_PLUGIN_VST3_CATEGORIES "Fx|Pitch Shift"
#define DISTRHO_PLUGIN_CLAP_FEATURES "audio-effect", "pitch-shifter"
