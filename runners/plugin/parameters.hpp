// The parameters of the plugin. Their order, symbols and ranges are what sessions of hosts hold on to: new ones go last,
// before the outputs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace astrape {

struct Shipped {
    const char *symbol, *name, *unit;
    float standard, minimum, maximum;
    bool whole;
};

#include "controls.hpp"

enum class Kind { number, whole, choice, output };

struct Parameter {
    std::string symbol, name, unit, about;
    float standard, minimum, maximum;
    Kind kind = Kind::number;
    bool automated = true;
};

enum Index : std::uint32_t {
    kBypass, kVoice, kPitch, kMix, kGain, kSides, kWorker, kPackage,  // then slots, then controls of the shipped recipe
    kSlots,
};

constexpr std::uint32_t kSlotCount = 8;
constexpr std::uint32_t kNamed = kSlots + kSlotCount;
constexpr std::uint32_t kNamedCount = sizeof kShipped / sizeof *kShipped;
constexpr std::uint32_t kStatus = kNamed + kNamedCount, kLate = kStatus + 1, kLoad = kStatus + 2;
constexpr std::uint32_t kParameters = kStatus + 3;
constexpr int kVoices = 64, kPackages = 16;  // that the ranges have room for

inline std::vector<Parameter> parameters() {
    std::vector<Parameter> all = {
        {"bypass", "Bypass", "", "Sound as it came, as late as ever", 0, 0, 1, Kind::whole},
        {"voice", "Voice", "", "Who speaks", 0, 0, kVoices - 1, Kind::choice},
        {"pitch", "Pitch", "semitones", "On top of where the voice lies", 0, -24, 24},
        {"mix", "Mix", "%", "Of the voice, the rest is the sound as it came", 100, 0, 100},
        {"gain", "Output gain", "dB", "", 0, -24, 24},
        {"sides", "Sides", "", "One voice of both sides, or one for each, which takes twice the time", 0, 0, 1, Kind::choice},
        {"worker", "Worker", "", "Compute beside the host, a step later; by itself where blocks are shorter than a step", 0, 0, 2, Kind::choice, false},
        {"package", "Package", "", "What is run", 0, 0, kPackages - 1, Kind::choice, false},
    };
    for (std::uint32_t i = 1; i <= kSlotCount; ++i) {
        const auto number = std::to_string(i);
        all.push_back({"control_" + number, "Control " + number, "",
                       "Of a package with controls that have no name here: 0 is the default, then from least to most", 0, 0, 1});
    }
    for (const auto& one : kShipped) {
        const std::string symbol = one.symbol;
        // A register of 0 is the voice's own.
        const bool own = symbol == "register";
        all.push_back({symbol, one.name, one.unit, own ? "Where the voice lies; below the least its own" : "",
                       own ? 0 : one.standard, own ? 0 : one.minimum, one.maximum, one.whole ? Kind::whole : Kind::number});
    }
    all.push_back({"status", "Status", "", "Why sound passes through, where it does", 0, 0, 4, Kind::output});
    all.push_back({"late", "Late steps", "", "That the worker did not have ready in time", 0, 0, 1e6f, Kind::output});
    all.push_back({"load", "Load", "%", "The longest step in the time it stands for", 0, 0, 1000, Kind::output});
    return all;
}

}  // namespace astrape
