#include "stream.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sched.h>
#endif

#include "denormals.hpp"
#include "library.hpp"

namespace astrape {
namespace {

constexpr int kTrials = 3;  // steps before the first: caches and pages are then as they will be

bool same(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

}  // namespace

std::int64_t Stream::latency_of(const Package& package, bool worker) {
    return package.outputs.at(audible(package)).host_latency + (worker ? package.input.frames : 0);
}

Stream::Stream(const Package& package, int channels, int sides, bool worker)
    : package_(package), chosen_(audible(package)), step_(package.input.frames), latency_(latency_of(package, worker)),
      worker_(worker) {
    if (package_.controls.size() > Settings::kMost) {
        throw Error("'" + package_.name + "' has " + std::to_string(package_.controls.size()) + " controls, at most " +
                        std::to_string(Settings::kMost), "leave some out");
    }
    const auto step = static_cast<std::size_t>(step_);
    const auto room = static_cast<std::size_t>(latency_) + 2 * step + 1;
    for (int i = 0; i < channels; ++i) delayed_.emplace_back(room);
    for (int i = 0; i < sides; ++i) {
        sides_.push_back({Session(package_.folder), std::vector<float>(step), std::vector<float>(step),
                          std::vector<float>(step), Ring(room), {}});
        auto& side = sides_.back();
        for (const auto& control : package_.controls) {
            if (!control.standard) side.session.set(control.name, std::vector<float>(control.channels, control.minimum.value_or(0)));
        }
        NoDenormals guard;
        for (int trial = 0; trial < kTrials; ++trial) {
            for (auto& output : side.given) output.clear();
            side.session.push(side.filling.data(), step, side.given);
        }
    }
    reset();
    if (worker_) thread_ = std::thread([this] { run_worker(); });
}

Stream::~Stream() {
    if (!thread_.joinable()) return;
    ending_ = true;
    go_.release();
    thread_.join();
}

void Stream::reset() {
    if (outstanding_) done_.acquire();
    outstanding_ = false;
    const auto& out = package_.outputs[chosen_];
    for (auto& side : sides_) {
        side.session.reset();
        side.waiting.clear();
        // Before the first step gives anything, silence for as long as frames wait for their step.
        const auto early = latency_ - out.latency;
        for (std::int64_t n = 0; n < early; ++n) side.waiting.push(0);
    }
    for (auto& channel : delayed_) {
        channel.clear();
        for (std::int64_t n = 0; n < latency_; ++n) channel.push(0);
    }
    filled_ = 0;
    first_ = true;
    followed_ = false;
    late_ = 0;
    load_ = 0;
    failed_ = false;
    faulted_ = false;
}

void Stream::process(const float* const* in, float* const* wet, float* const* dry, std::size_t frames, const Settings& settings) {
    if (worker_ && !followed_) follow_priority();
    for (std::size_t at = 0; at < frames;) {
        const auto count = std::min(frames - at, static_cast<std::size_t>(step_ - filled_));
        const auto summed = sides_.size() < delayed_.size();
        for (std::size_t i = 0; i < sides_.size(); ++i) {
            auto* to = sides_[i].filling.data() + filled_;
            for (std::size_t n = 0; n < count; ++n) to[n] = summed ? 0.5f * (in[0][at + n] + in[1][at + n]) : in[i][at + n];
        }
        for (std::size_t i = 0; i < delayed_.size(); ++i) {
            for (std::size_t n = 0; n < count; ++n) {
                const auto x = in[i][at + n];
                delayed_[i].push(std::isfinite(x) ? x : 0.0f);
                dry[i][at + n] = delayed_[i].pop();
            }
        }
        filled_ += static_cast<std::int64_t>(count);
        if (filled_ == step_) boundary(settings);
        for (std::size_t i = 0; i < sides_.size(); ++i) {
            for (std::size_t n = 0; n < count; ++n) wet[i][at + n] = sides_[i].waiting.pop();
            if (summed) std::copy_n(wet[i] + at, count, wet[1] + at);
        }
        at += count;
    }
}

void Stream::boundary(const Settings& settings) {
    if (worker_) collect();
    next_ = settings;
    for (auto& side : sides_) std::swap(side.filling, side.computing);
    filled_ = 0;
    outstanding_ = true;
    if (worker_) go_.release();
    else compute();
    if (!worker_) collect();
}

// What was computed goes to where it waits to be heard.
void Stream::collect() {
    if (!outstanding_) return;
    if (worker_ && !done_.try_acquire()) {
        late_.fetch_add(1, std::memory_order_relaxed);
        done_.acquire();
    }
    outstanding_ = false;
    for (auto& side : sides_) for (const auto x : side.computed) side.waiting.push(x);
}

void Stream::compute() {
    const auto before = std::chrono::steady_clock::now();
    NoDenormals guard;
    try {
        for (auto& side : sides_) {
            apply(side.session);
            for (auto& output : side.given) output.clear();
            side.session.push(side.computing.data(), static_cast<std::size_t>(step_), side.given);
            std::copy_n(side.given.at(chosen_).begin(), step_, side.computed.begin());
            if (side.session.faulted()) faulted_ = true;
        }
        applied_ = next_;
        first_ = false;
    } catch (const std::exception&) {
        failed_ = true;
        for (auto& side : sides_) std::fill(side.computed.begin(), side.computed.end(), 0.0f);
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - before;
    const auto rate = static_cast<double>(package_.input.rate.over) / static_cast<double>(package_.input.rate.under);
    const auto load = static_cast<float>(took.count() * rate / static_cast<double>(step_));
    if (load > load_) load_ = load;
}

void Stream::apply(Session& session) {
    for (std::size_t i = 0; i < package_.controls.size(); ++i) {
        const auto& control = package_.controls[i];
        if (control.channels == 1) {
            if (first_ || !same(next_.values[i], applied_.values[i])) session.set(control.name, {next_.values[i]});
        } else if (control.name == "speaker" && next_.voice && (first_ || next_.voice != applied_.voice)) {
            session.set(control.name, next_.voice->embedding);
        }
    }
}

void Stream::run_worker() {
    for (;;) {
        go_.acquire();
        if (ending_) return;
        compute();
        done_.release();
    }
}

// The worker runs as urgently as the thread that waits for it, where the system lets it.
void Stream::follow_priority() {
    followed_ = true;
#if defined(__unix__) || defined(__APPLE__)
    int policy = 0;
    sched_param priority{};
    if (pthread_getschedparam(pthread_self(), &policy, &priority) == 0 && policy != SCHED_OTHER) {
        pthread_setschedparam(thread_.native_handle(), policy, &priority);
    }
#endif
}

}  // namespace astrape
