// Loads packages, where it takes time at the thread that asks or at one of its own, and takes back what has served.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <semaphore>
#include <string>
#include <thread>

#include "library.hpp"
#include "stream.hpp"
#include "table.hpp"

namespace astrape {

enum class Worker { when_needed, off, on };

struct Want {
    const Name* package = nullptr;  // none: a number that stands for nothing
    double rate = 0;
    int channels = 1, sides = 1;
    Worker worker = Worker::when_needed;
    std::int64_t block = 0;  // that the host announces
    bool operator==(const Want&) const = default;

    // Where blocks are shorter than a step, some take a whole step's time and most none: then it is needed.
    bool works(const Package& package_of_it) const {
        return worker == Worker::on || (worker == Worker::when_needed && block < package_of_it.input.frames);
    }
};

// A stream, or none where there can be none; then sound passes through.
struct Loaded {
    Want want;
    std::unique_ptr<Stream> stream;

    // Whether the stream is one as it would be made for another want.
    bool fits(const Want& other) const {
        auto like = want;
        like.block = other.block;
        return stream && !stream->failed() && like == other && want.works(stream->package()) == other.works(stream->package());
    }
};

class Loader {
public:
    // `explain` says in words what is the matter, and is asked after `say`.
    Loader(const Library& library, std::function<std::string()> explain) : library_(library), explain_(std::move(explain)) {}
    ~Loader();

    // Waits for it. Not for a thread of audio while sound runs.
    std::unique_ptr<Loaded> load(const Want& want);

    // These never wait. What was asked for last is ready at some time, and what is the matter is written to the log.
    void ask(const Want& want);
    std::unique_ptr<Loaded> ready();
    void retire(std::unique_ptr<Loaded> served);
    void say();

    // Why the last load came to nothing, or nothing.
    std::string problem() const;

private:
    std::unique_ptr<Loaded> made(const Want& want);
    void serve();
    void write();

    const Library& library_;
    std::function<std::string()> explain_;
    mutable std::mutex telling_, asking_;
    std::string problem_;
    Want asked_;
    std::atomic<Loaded*> ready_{nullptr};
    std::array<std::atomic<Loaded*>, 8> served_{};
    std::atomic<bool> ending_{false}, saying_{false};
    std::counting_semaphore<> work_{0};
    std::thread thread_;
};

}  // namespace astrape
