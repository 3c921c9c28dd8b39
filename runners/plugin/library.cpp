#include "library.hpp"

#include <algorithm>
#include <cstdlib>
#include <sstream>

namespace astrape {
namespace {

namespace fs = std::filesystem;

constexpr const char* kShipped = "astrape-mini";
constexpr int kDepth = 4;
constexpr std::size_t kEmbedding = 128;

std::vector<fs::path> own_folders() {
    std::vector<fs::path> folders;
    if (const auto* named = std::getenv("ASTRAPE_PACKAGES")) {
        std::stringstream list(named);
        for (std::string one; std::getline(list, one, ':');) if (!one.empty()) folders.emplace_back(one);
    }
    if (const auto* data = std::getenv("XDG_DATA_HOME"); data && *data) folders.push_back(fs::path(data) / "astrape");
    else if (const auto* home = std::getenv("HOME")) folders.push_back(fs::path(home) / ".local/share/astrape");
    return folders;
}

std::string hertz(Fraction rate) {
    const auto over = std::to_string(rate.over);
    return rate.under == 1 ? over : over + "/" + std::to_string(rate.under);
}

std::string hertz(double rate) {
    std::ostringstream text;
    text << rate;
    return rate == static_cast<double>(static_cast<std::int64_t>(rate)) ? std::to_string(static_cast<std::int64_t>(rate))
                                                                        : text.str();
}

bool at_rate(const Package& package, double rate) {
    return static_cast<double>(package.input.rate.over) == rate * static_cast<double>(package.input.rate.under);
}

}  // namespace

Library::Library(const fs::path& bundle) {
    look_through(bundle, 0);
    for (const auto& folder : own_folders()) look_through(folder, 0);
    names_.push_back({kShipped});
    for (const auto& [name, _] : found_) if (name != kShipped) names_.push_back({name});
}

void Library::look_through(const fs::path& folder, int depth) {
    std::error_code none;
    std::vector<fs::path> here;
    for (fs::directory_iterator each(folder, none), end; !none && each != end; each.increment(none)) here.push_back(*each);
    std::sort(here.begin(), here.end());  // the same order on every machine
    for (const auto& path : here) {
        if (path.filename() == "manifest.json") take_package(folder);
        else if (path.extension() == ".astrape") take_voice(path);
        else if (depth < kDepth && fs::is_directory(path, none)) look_through(path, depth + 1);
    }
}

void Library::take_package(const fs::path& folder) {
    try {
        auto package = read_package(folder);
        audible(package);
        found_[package.name].push_back(std::move(package));
    } catch (const std::exception& error) {
        broken_.push_back(error.what());
    }
}

void Library::take_voice(const fs::path& file) {
    Entry entry{file.stem().string(), {}, {}};
    const auto same = [&](const Entry& other) { return other.name == entry.name; };
    if (std::any_of(voices_.begin(), voices_.end(), same)) return;
    try {
        entry.voice = read_voice(file);
    } catch (const std::exception& error) {
        entry.problem = error.what();
    }
    voices_.push_back(std::move(entry));
}

Package Library::package(const std::string& name, double rate) const {
    const auto known = found_.find(name);
    std::string rates;
    if (known != found_.end()) {
        for (const auto& one : known->second) {
            if (at_rate(one, rate)) return one;
            rates += (rates.empty() ? "" : ", ") + hertz(one.input.rate);
        }
    }
    std::string also;
    for (const auto& problem : broken_) also += " (also: " + problem + ")";
    const auto command = "astrape export " + name + " --rate " + hertz(rate) + " -o ~/.local/share/astrape/" + name + "-" +
                         hertz(rate);
    if (rates.empty()) throw Error("no package of '" + name + "' is there, sound passes through" + also, command);
    throw Error("'" + name + "' is there for " + rates + " Hz, and the host runs at " + hertz(rate) +
                    " Hz: sound passes through" + also, command);
}

Entry Library::missing(const std::string& name) {
    return {name, Error("voice '" + name + "' is not there, sound passes through",
                        "copy " + name + ".astrape to ~/.local/share/astrape").what(), {}};
}

std::size_t audible(const Package& package) {
    const auto& in = package.input;
    const auto file = (package.folder / "manifest.json").string();
    if (in.channels != 1) {
        throw Error(file + ": takes " + std::to_string(in.channels) + " channels, and the plugin gives one", "export a recipe of one");
    }
    for (const auto& control : package.controls) {
        if (control.channels == 1 || control.standard) continue;
        if (control.name != "speaker" || control.channels != kEmbedding) {
            throw Error(file + ": control '" + control.name + "' takes " + std::to_string(control.channels) +
                            " numbers, and a plugin has none for it", "give it a default in the recipe");
        }
    }
    for (std::size_t i = 0; i < package.outputs.size(); ++i) {
        const auto& out = package.outputs[i];
        const bool same = out.rate.over == in.rate.over && out.rate.under == in.rate.under && out.frames == in.frames;
        if (out.channels == 1 && same) return i;
    }
    throw Error(file + ": has no output of one channel at " + hertz(in.rate) + " Hz", "export a recipe from audio to audio");
}

}  // namespace astrape
