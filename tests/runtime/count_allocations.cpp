// What a push takes from the heap after warm-up. Every allocation of the process is counted, whoever asks for it.
// With -DSILENT the engine is one that computes nothing, so that what is left is the session's own.
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <malloc.h>

#include "astrape.hpp"
#include "engine.hpp"

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void __libc_free(void*);
}

namespace {
std::atomic<long> taken{0};  // allocations so far
std::atomic<long> held{0};   // bytes now
void* counted(void* memory) {
    if (memory != nullptr) {
        ++taken;
        held += static_cast<long>(malloc_usable_size(memory));
    }
    return memory;
}
void given_back(void* memory) {
    if (memory != nullptr) held -= static_cast<long>(malloc_usable_size(memory));
}
}  // namespace

extern "C" {
void* malloc(std::size_t size) { return counted(__libc_malloc(size)); }
void* calloc(std::size_t count, std::size_t size) { return counted(__libc_calloc(count, size)); }
void* realloc(void* memory, std::size_t size) {
    given_back(memory);
    return counted(__libc_realloc(memory, size));
}
void* memalign(std::size_t by, std::size_t size) { return counted(__libc_memalign(by, size)); }
void* aligned_alloc(std::size_t by, std::size_t size) { return counted(__libc_memalign(by, size)); }
int posix_memalign(void** to, std::size_t by, std::size_t size) {
    *to = counted(__libc_memalign(by, size));
    return *to == nullptr ? ENOMEM : 0;
}
void free(void* memory) {
    given_back(memory);
    __libc_free(memory);
}
}

#if defined(SILENT)
namespace astrape {
namespace {
class Nothing : public Engine {
public:
    explicit Nothing(const Package& package) : in_(package.input.channels * package.input.frames) {
        for (const auto& one : package.outputs) out_.emplace_back(one.channels * one.frames);
    }
    float* input() override { return in_.data(); }
    const float* output(std::size_t index) override { return out_[index].data(); }
    void prepare(const Values&) override {}
    void run() override {}
    void reset() override {}

private:
    std::vector<float> in_;
    std::vector<std::vector<float>> out_;
};
}  // namespace
std::unique_ptr<Engine> onnx_engine(const Json&, const Package& package, const Files&, int) {
    return std::make_unique<Nothing>(package);
}
}  // namespace astrape
#endif

int main(int, char** words) {
    constexpr int kBlock = 100, kWarm = 100, kPushes = 400;  // a step is not a whole number of blocks
    for (const bool constant : {false, true}) {
        astrape::Streaming how;
        how.constant_latency = constant;
        astrape::Session session(words[1], how);
        for (const auto& one : session.controls()) {
            if (!one.standard) session.set(one.name, std::vector<float>(one.channels, one.minimum.value_or(0.1f)));
        }
        std::vector<float> block(kBlock * session.input().channels, 0.1f);
        astrape::Frames out(session.outputs().size());
        for (auto& each : out) each.reserve(1 << 14);
        long before = 0, bytes = 0, most = 0;
        for (int push = 0; push < kWarm + kPushes; ++push) {
            if (push == kWarm) before = taken, bytes = held;
            for (auto& each : out) each.clear();
            session.push(block.data(), kBlock, out);
            if (push >= kWarm && held - bytes > most) most = held - bytes;
        }
        std::printf("{\"constant\": %s, \"allocations\": %ld, \"growth\": %ld}\n", constant ? "true" : "false",
                    taken - before, most);
    }
}
