// Names by number. What a number means is saved with a host's session, so that it means the same where other files lie.
#pragma once

#include <algorithm>
#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "library.hpp"

namespace astrape {

// Items have a `name`. `at` is for any thread and never waits.
template <class Item> class Table {
public:
    Table(std::deque<Item> items, std::function<Item(const std::string&)> missing)
        : items_(std::move(items)), missing_(std::move(missing)) {
        std::vector<const Item*> order;
        for (const auto& item : items_) order.push_back(&item);
        publish(std::move(order));
    }

    // The item of a number, or nothing.
    const Item* at(int number) const {
        const auto& order = *order_.load(std::memory_order_acquire);
        return number >= 0 && static_cast<std::size_t>(number) < order.size() ? order[static_cast<std::size_t>(number)] : nullptr;
    }

    std::vector<std::string> names() const {
        std::vector<std::string> all;
        for (const auto* item : *order_.load(std::memory_order_acquire)) all.push_back(item->name);
        return all;
    }

    // Give the first numbers to these names, in this order, even to those that are not there; the others follow.
    void put_first(const std::vector<std::string>& names) {
        const std::lock_guard guard(changing_);
        std::vector<const Item*> order;
        for (const auto& name : names) {
            auto found = std::find_if(items_.begin(), items_.end(), [&](const Item& item) { return item.name == name; });
            if (found == items_.end()) found = items_.insert(items_.end(), missing_(name));
            if (std::find(order.begin(), order.end(), &*found) == order.end()) order.push_back(&*found);
        }
        for (const auto* item : *order_.load(std::memory_order_acquire)) {
            if (std::find(order.begin(), order.end(), item) == order.end()) order.push_back(item);
        }
        publish(std::move(order));
    }

private:
    // Orders are kept to the end: somebody may be reading one.
    void publish(std::vector<const Item*> order) {
        kept_.push_back(std::make_unique<std::vector<const Item*>>(std::move(order)));
        order_.store(kept_.back().get(), std::memory_order_release);
    }

    std::deque<Item> items_;
    std::function<Item(const std::string&)> missing_;
    std::mutex changing_;
    std::deque<std::unique_ptr<std::vector<const Item*>>> kept_;
    std::atomic<const std::vector<const Item*>*> order_{nullptr};
};

}  // namespace astrape
