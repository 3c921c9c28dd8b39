// A host for one CLAP plugin: clap_host PLUGIN RATE BLOCK IN OUT reads and writes samples of two channels, one channel
// after the other, and prints the latency that it was told. clap_host PLUGIN prints the parameters: id, path, least, most.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include <dlfcn.h>

#include "clap/entry.h"
#include "clap/ext/latency.h"
#include "clap/ext/params.h"
#include "clap/plugin-factory.h"

namespace {

void nothing(const clap_host_t*) {}
const clap_host_latency_t kLatency{nothing};
const void* extension(const clap_host_t*, const char* id) { return std::strcmp(id, CLAP_EXT_LATENCY) ? nullptr : &kLatency; }
uint32_t none(const clap_input_events_t*) { return 0; }
const clap_event_header_t* nowhere(const clap_input_events_t*, uint32_t) { return nullptr; }
bool taken(const clap_output_events_t*, const clap_event_header_t*) { return true; }

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "clap_host: %s\n", what);
    std::exit(1);
}

}  // namespace

int main(int count, char** words) {
    void* library = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
    if (!library) fail(dlerror());
    const auto* entry = static_cast<const clap_plugin_entry_t*>(dlsym(library, "clap_entry"));
    if (!entry || !entry->init(words[1])) fail("no entry");
    const auto* factory = static_cast<const clap_plugin_factory_t*>(entry->get_factory(CLAP_PLUGIN_FACTORY_ID));
    if (!factory || factory->get_plugin_count(factory) != 1) fail("no plugin");
    const clap_host_t host{CLAP_VERSION, nullptr, "clap_host", "astrape", "", "1", extension, nothing, nothing, nothing};
    const auto* plugin = factory->create_plugin(factory, &host, factory->get_plugin_descriptor(factory, 0)->id);
    if (!plugin || !plugin->init(plugin)) fail("no instance");
    if (count == 2) {
        const auto* parameters = static_cast<const clap_plugin_params_t*>(plugin->get_extension(plugin, CLAP_EXT_PARAMS));
        for (uint32_t i = 0; i < parameters->count(plugin); ++i) {
            clap_param_info_t info{};
            if (!parameters->get_info(plugin, i, &info)) fail("no information");
            std::printf("%u %s %.17g %.17g\n", info.id, info.module, info.min_value, info.max_value);
        }
        plugin->destroy(plugin);
        entry->deinit();
        return 0;
    }
    const double rate = std::atof(words[2]);
    const auto block = static_cast<uint32_t>(std::atoi(words[3]));
    if (!plugin->activate(plugin, rate, 1, block) || !plugin->start_processing(plugin)) fail("not active");
    const auto* latency = static_cast<const clap_plugin_latency_t*>(plugin->get_extension(plugin, CLAP_EXT_LATENCY));
    std::printf("%u\n", latency->get(plugin));

    std::ifstream file(words[4], std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    const auto frames = static_cast<uint32_t>(bytes.size() / sizeof(float) / 2);
    std::vector<float> in(2 * frames), out(2 * frames);
    std::memcpy(in.data(), bytes.data(), in.size() * sizeof(float));
    const clap_input_events_t events_in{nullptr, none, nowhere};
    const clap_output_events_t events_out{nullptr, taken};
    for (uint32_t at = 0; at < frames; at += block) {
        float* from[2] = {in.data() + at, in.data() + frames + at};
        float* to[2] = {out.data() + at, out.data() + frames + at};
        clap_audio_buffer_t heard{}, given{};
        heard.data32 = from;
        given.data32 = to;
        heard.channel_count = given.channel_count = 2;
        clap_process_t process{};
        process.steady_time = at;
        process.frames_count = frames - at < block ? frames - at : block;
        process.audio_inputs = &heard;
        process.audio_outputs = &given;
        process.audio_inputs_count = process.audio_outputs_count = 1;
        process.in_events = &events_in;
        process.out_events = &events_out;
        if (plugin->process(plugin, &process) == CLAP_PROCESS_ERROR) fail("process");
    }
    plugin->stop_processing(plugin);
    plugin->deactivate(plugin);
    plugin->destroy(plugin);
    entry->deinit();
    std::ofstream made(words[5], std::ios::binary);
    made.write(reinterpret_cast<const char*>(out.data()), static_cast<std::streamsize>(out.size() * sizeof(float)));
}
