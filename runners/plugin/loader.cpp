#include "loader.hpp"

#include <cstdio>

namespace astrape {

Loader::~Loader() {
    ending_ = true;
    work_.release();
    if (thread_.joinable()) thread_.join();
    write();
    delete ready_.exchange(nullptr);
    for (auto& place : served_) delete place.exchange(nullptr);
}

std::unique_ptr<Loaded> Loader::made(const Want& want) {
    auto loaded = std::make_unique<Loaded>();
    loaded->want = want;
    std::string problem;
    try {
        if (!want.package) throw Error("the package of that number is not there, sound passes through", "choose another");
        const auto package = library_.package(want.package->name, want.rate);
        loaded->stream = std::make_unique<Stream>(package, want.channels, want.sides, want.works(package));
    } catch (const std::exception& error) {
        problem = error.what();
    }
    const std::lock_guard guard(telling_);
    problem_ = problem;
    return loaded;
}

std::unique_ptr<Loaded> Loader::load(const Want& want) {
    if (!thread_.joinable()) thread_ = std::thread([this] { serve(); });
    return made(want);
}

void Loader::ask(const Want& want) {
    const std::unique_lock guard(asking_, std::try_to_lock);
    if (!guard.owns_lock() || asked_ == want) return;  // asked again with the next block
    asked_ = want;
    work_.release();
}

std::unique_ptr<Loaded> Loader::ready() { return std::unique_ptr<Loaded>(ready_.exchange(nullptr)); }

void Loader::retire(std::unique_ptr<Loaded> served) {
    for (auto& place : served_) {
        Loaded* none = nullptr;
        if (place.compare_exchange_strong(none, served.get())) {
            served.release();
            work_.release();
            return;
        }
    }
}

void Loader::say() {
    saying_ = true;
    work_.release();
}

void Loader::write() {
    if (saying_.exchange(false)) std::fprintf(stderr, "astrape: %s\n", explain_().c_str());
}

void Loader::serve() {
    for (Want done;;) {
        work_.acquire();
        if (ending_) return;
        write();
        for (auto& place : served_) delete place.exchange(nullptr);
        Want want;
        {
            const std::lock_guard guard(asking_);
            want = asked_;
        }
        if (want == done || want == Want{}) continue;
        delete ready_.exchange(made(want).release());
        done = want;
        const std::lock_guard guard(asking_);
        if (asked_ == want) asked_ = Want{}, done = Want{};  // it may be asked for again
    }
}

std::string Loader::problem() const {
    const std::lock_guard guard(telling_);
    return problem_;
}

}  // namespace astrape
