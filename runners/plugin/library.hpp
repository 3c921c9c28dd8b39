// The packages and voices that a plugin can turn to: those in its bundle, and those in folders that it looks through.
#pragma once

#include <deque>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "astrape.hpp"

namespace astrape {

struct Name {
    std::string name;
};

// A voice by its name, or why there is none.
struct Entry {
    std::string name, problem;
    std::optional<Voice> voice;
};

class Library {
public:
    // `bundle` is looked through first; then what $ASTRAPE_PACKAGES names, and ~/.local/share/astrape.
    explicit Library(const std::filesystem::path& bundle);

    // Names of recipes: the one that ships, which is there even if its files are not, and then by the alphabet.
    const std::deque<Name>& packages() const { return names_; }
    const std::deque<Entry>& voices() const { return voices_; }

    // The package of a recipe for a host at a rate. Throws Error, with everything that is known to be wrong.
    Package package(const std::string& name, double rate) const;

    // An entry that only says that a voice is missing.
    static Entry missing(const std::string& name);

private:
    void look_through(const std::filesystem::path& folder, int depth);
    void take_package(const std::filesystem::path& folder);
    void take_voice(const std::filesystem::path& file);

    std::deque<Name> names_;
    std::map<std::string, std::vector<Package>> found_;
    std::vector<std::string> broken_;
    std::deque<Entry> voices_;
};

// Which output is heard: the first of one channel at the input's rate. Throws Error for a package without.
std::size_t audible(const Package& package);

}  // namespace astrape
