// One or two streams through a package, as a host wants it: as many frames out as in, always equally late.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <semaphore>
#include <thread>
#include <vector>

#include "astrape.hpp"

namespace astrape {

// What a step runs with: a voice, where the package listens to one, and a value for each control of one channel.
struct Settings {
    static constexpr std::size_t kMost = 64;
    const Voice* voice = nullptr;
    float values[kMost] = {};  // in the order of Package::controls
};

// A ring of samples of a fixed size, for one thread.
class Ring {
public:
    explicit Ring(std::size_t size) : samples_(size) {}
    std::size_t count() const { return count_; }
    void clear() { from_ = count_ = 0; }
    void push(float x) { samples_[(from_ + count_++) % samples_.size()] = x; }
    float pop() {
        const auto x = samples_[from_];
        from_ = from_ + 1 == samples_.size() ? 0 : from_ + 1;
        --count_;
        return x;
    }

private:
    std::vector<float> samples_;
    std::size_t from_ = 0, count_ = 0;
};

class Stream {
public:
    // Loads a session for each side, and tries them out, so that all memory is there. One side of two channels is their
    // mean, and heard on both. `worker`: a thread computes each step while the host goes on, which makes the stream a
    // step later. Throws Error.
    Stream(const Package& package, int channels, int sides, bool worker);
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    const Package& package() const { return package_; }
    std::int64_t step() const { return step_; }        // frames that a step takes in
    std::int64_t latency() const { return latency_; }  // of what comes out, wet and dry: `host_samples` of the report
    static std::int64_t latency_of(const Package& package, bool worker);

    // Start anew at time zero, not while `process` runs.
    void reset();

    // Any number of frames of each channel. Settings are taken over where a step begins to be computed. Only a step
    // that is not ready in time is waited for: nothing is ever left out.
    void process(const float* const* in, float* const* wet, float* const* dry, std::size_t frames, const Settings& settings);

    std::int64_t late() const { return late_.load(std::memory_order_relaxed); }  // steps that were waited for
    float load() const { return load_.load(std::memory_order_relaxed); }         // the longest step in those it stands for
    bool failed() const { return failed_.load(std::memory_order_relaxed); }      // a step ended with an error: silence
    bool faulted() const { return faulted_.load(std::memory_order_relaxed); }    // something not finite is silent

private:
    struct Side {
        Session session;
        std::vector<float> filling, computing, computed;
        Ring waiting;
        Frames given;
    };

    void boundary(const Settings& settings);
    void compute();
    void apply(Session& session);
    void collect();
    void run_worker();
    void follow_priority();

    Package package_;
    std::size_t chosen_;
    std::int64_t step_, latency_;
    bool worker_;
    std::vector<Side> sides_;
    std::vector<Ring> delayed_;  // of each channel
    std::int64_t filled_ = 0;
    Settings next_, applied_;
    bool first_ = true, outstanding_ = false, followed_ = false;
    std::atomic<std::int64_t> late_{0};
    std::atomic<float> load_{0};
    std::atomic<bool> failed_{false}, faulted_{false}, ending_{false};
    std::counting_semaphore<> go_{0}, done_{0};
    std::thread thread_;
};

}  // namespace astrape
