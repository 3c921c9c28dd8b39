// astrape-run: a WAV through an export, in blocks of any size.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include <sndfile.hh>

#include "astrape.hpp"

namespace {

namespace fs = std::filesystem;
using astrape::Error;

constexpr const char* kUse =
    "Usage: astrape-run EXPORT IN.wav OUT.wav [OPTIONS]\n\n"
    "Stream IN.wav through the folder EXPORT, which astrape export wrote. OUT.wav lies in step with IN.wav.\n\n"
    "A package of AOTInductor in EXPORT is code: run none but your own.\n\n"
    "  --block N            frames of a push, 480 by default; 0: another number for each, at random, up to 3000\n"
    "  --set NAME=V[,V...]  hold a control: one value, or one a channel\n"
    "  --voice FILE         a voice of version 3 (.astrape) for the control 'speaker', and its register for 'register'\n"
    "  --output NAME        which output to write; the first by default\n"
    "  --engine NAME        onnx or aoti; the first that this build and EXPORT have by default\n"
    "  --live               write what a host hears live: as long as IN.wav, and late\n";

struct Options {
    std::vector<std::string> paths;
    long block = 480;
    std::vector<std::pair<std::string, std::vector<float>>> controls;
    std::string output, voice, engine;
    bool live = false;
};

std::vector<float> numbers(const std::string& text) {
    std::vector<float> found;
    for (std::size_t from = 0; from <= text.size();) {
        const auto comma = std::min(text.find(',', from), text.size());
        const auto word = text.substr(from, comma - from);
        std::size_t used = 0;
        try {
            found.push_back(std::stof(word, &used));
        } catch (const std::exception&) {
            used = 0;
        }
        if (word.empty() || used != word.size()) throw Error("'" + word + "' is not a number", "write --set NAME=1.5");
        from = comma + 1;
    }
    return found;
}

Options parsed(int count, char** words) {
    Options options;
    for (int i = 1; i < count; ++i) {
        const std::string word = words[i];
        if (word.rfind("--", 0) != 0) {
            options.paths.push_back(word);
            continue;
        }
        if (word == "--live") {
            options.live = true;
            continue;
        }
        if (i + 1 == count) throw Error(word + " has no value", "astrape-run --help");
        const std::string value = words[++i];
        if (word == "--block") {
            options.block = static_cast<long>(numbers(value).at(0));
            if (options.block < 0 || std::to_string(options.block) != value) {
                throw Error("--block is " + value, "give 1 or more frames, or 0 for random ones");
            }
        } else if (word == "--set") {
            const auto equals = value.find('=');
            if (equals == std::string::npos) throw Error("--set " + value + " has no '='", "write --set NAME=1.5");
            options.controls.emplace_back(value.substr(0, equals), numbers(value.substr(equals + 1)));
        } else if (word == "--voice") {
            options.voice = value;
        } else if (word == "--output") {
            options.output = value;
        } else if (word == "--engine") {
            options.engine = value;
        } else {
            throw Error("unknown option " + word, "astrape-run --help");
        }
    }
    if (options.paths.size() != 3) {
        throw Error(std::to_string(options.paths.size()) + " paths instead of 3", "astrape-run EXPORT IN.wav OUT.wav");
    }
    return options;
}

// Whether a chunk begins so, and no sound.
bool is_chunk(const std::array<char, 4>& name) {
    for (const char* known : {"LIST", "bext", "cue ", "fact", "id3 ", "ID3 ", "iXML", "JUNK", "PEAK", "smpl", "_PMX"}) {
        if (std::memcmp(name.data(), known, name.size()) == 0) return true;
    }
    return false;
}

// libsndfile reads what there is of a WAV that was cut off, and says nothing.
void check_whole(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::array<char, 12> head{};
    file.read(head.data(), head.size());
    if (!file || std::memcmp(head.data(), "RIFF", 4) != 0) return;  // of another form, or none: libsndfile's to say
    const auto size = static_cast<std::uint64_t>(fs::file_size(path));
    std::array<char, 8> chunk{};
    for (std::uint64_t from = 12; from + 8 <= size;) {
        file.seekg(static_cast<std::streamoff>(from));
        if (!file.read(chunk.data(), chunk.size())) return;
        std::uint32_t length = 0;
        std::memcpy(&length, chunk.data() + 4, 4);
        if (std::memcmp(chunk.data(), "data", 4) == 0) {
            // Nobody came back to say how long it is, and libsndfile reads nothing of it.
            const auto behind = size - from - 8;
            std::array<char, 4> next{};
            if (length == 0 && behind > 0 && (!file.read(next.data(), next.size()) || !is_chunk(next))) {
                throw Error(path + ": its header does not say how long it is, and " + std::to_string(behind) +
                                " bytes follow", "sox --ignore-length " + path + " WHOLE.wav");
            }
            // The largest lengths are written to a pipe: no length is known.
            if (length < 0x7ffff000U && from + 8 + length > size) {
                throw Error(path + ": is cut off: " + std::to_string(size - from - 8) + " of " + std::to_string(length) +
                                " bytes of sound are there", "copy it again");
            }
            return;
        }
        from += 8 + std::uint64_t{length} + (length & 1);
    }
    throw Error(path + ": is cut off before its sound", "copy it again");
}

bool has(const astrape::Session& session, const std::string& control) {
    const auto& there = session.controls();
    return std::any_of(there.begin(), there.end(), [&](const auto& one) { return one.name == control; });
}

void set_voice(astrape::Session& session, const std::string& file) {
    const auto voice = astrape::read_voice(file);
    if (!voice.encoder.empty() && !session.encoder().empty() && voice.encoder != session.encoder()) {
        throw Error(file + ": is of the encoder '" + voice.encoder + "', and '" + session.name() + "' takes voices of '" +
                        session.encoder() + "'", "astrape voicebank build --encoder " + session.encoder());
    }
    session.set("speaker", voice.embedding);
    if (voice.median_f0 && has(session, "register")) session.set("register", {*voice.median_f0});
}

void run(const Options& options) {
    astrape::Streaming how;
    how.engine = options.engine;
    how.constant_latency = options.live;
    astrape::Session session(options.paths[0], how);
    if (!options.voice.empty()) set_voice(session, options.voice);
    for (const auto& [name, values] : options.controls) session.set(name, values);
    const auto& in = session.input();
    const auto chosen = options.output.empty() ? 0 : session.output(options.output);
    const auto& out = session.outputs().at(chosen);

    const auto& path = options.paths[1];
    SndfileHandle source(path);
    if (source.error() != 0) throw Error(path + ": " + source.strError(), "name a WAV");
    check_whole(path);
    if (source.samplerate() * in.rate.under != in.rate.over) {
        const auto wanted = std::to_string(in.rate.over / in.rate.under);
        throw Error(path + ": has " + std::to_string(source.samplerate()) + " Hz, and '" + session.name() + "' takes " +
                        wanted + " Hz", "sox " + path + " -r " + wanted + " OTHER.wav");
    }
    if (source.channels() != in.channels) {
        throw Error(path + ": has " + std::to_string(source.channels()) + " channels, and '" + session.name() +
                        "' takes " + std::to_string(in.channels), "mix it down or choose another file");
    }
    if (out.rate.under != 1) throw Error("'" + out.name + "' has no whole rate", "choose another with --output");

    // The file appears whole or not at all.
    const fs::path made = options.paths[2], part = made.string() + ".part";
    try {
        SndfileHandle sink(part.string(), SFM_WRITE, SF_FORMAT_WAV | SF_FORMAT_FLOAT, static_cast<int>(out.channels),
                           static_cast<int>(out.rate.over));
        if (sink.error() != 0) throw Error(made.string() + ": " + sink.strError(), "name a file in a folder that is there");
        auto skip = options.live ? 0 : out.latency;
        astrape::Frames got;
        const auto write = [&] {
            auto& frames = got.at(chosen);
            const auto there = static_cast<std::int64_t>(frames.size()) / out.channels;
            const auto gone = std::min(skip, there);
            skip -= gone;
            if (sink.writef(frames.data() + gone * out.channels, there - gone) != there - gone) {
                throw Error(made.string() + ": " + sink.strError(), "is the disk full?");
            }
            for (auto& each : got) each.clear();
        };
        std::mt19937 random(0);
        std::vector<float> block(static_cast<std::size_t>(std::max(options.block, 3000L) * in.channels));
        for (sf_count_t left = source.frames(); left > 0;) {
            const sf_count_t size = options.block ? options.block : static_cast<long>(random() % 3001);
            const auto count = source.readf(block.data(), std::min(size, left));
            if (count == 0 && size > 0) throw Error(path + ": ends early", "copy it again");
            session.push(block.data(), static_cast<std::size_t>(count), got);
            write();
            left -= count;
        }
        if (session.faulted()) std::cerr << "astrape-run: warning: something not finite is silent from there on\n";
        if (!options.live) {
            session.flush(got);
            write();
        }
    } catch (...) {
        std::error_code ignored;
        fs::remove(part, ignored);
        throw;
    }
    fs::rename(part, made);
    std::cout << made.string() << ": '" << out.name << "', ";
    if (options.live) std::cout << out.host_latency << " frames late\n";
    else std::cout << out.latency << " frames late and moved back; live it is " << out.host_latency << " frames late\n";
}

}  // namespace

int main(int count, char** words) {
    for (int i = 1; i < count; ++i) {
        if (std::string(words[i]) == "--help" || std::string(words[i]) == "-h") {
            std::cout << kUse;
            return 0;
        }
    }
    try {
        run(parsed(count, words));
        return 0;
    } catch (const std::exception& error) {
        std::cerr << "astrape-run: error: " << error.what() << "\n";
        return 1;
    }
}
