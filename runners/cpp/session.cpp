#include "astrape.hpp"

#include <algorithm>
#include <cmath>

#include "denormals.hpp"
#include "engine.hpp"

namespace astrape {

namespace fs = std::filesystem;

namespace {

std::string listed(const std::vector<std::string>& names) {
    std::string text;
    for (const auto& one : names) text += (text.empty() ? "" : ", ") + one;
    return text.empty() ? "none" : text;
}

// The engine that was asked for, or the first that is there in both this build and the folder.
std::string chosen_engine(const Json& manifest, const fs::path& folder, const std::string& asked) {
    const auto built = engines();
    if (!asked.empty() && std::find(built.begin(), built.end(), asked) == built.end()) {
        throw Error("this build has no engine '" + asked + "'", "it has: " + listed(built));
    }
    for (const auto& one : built) {
        if ((asked.empty() || asked == one) && manifest.contains(one) && manifest.at(one).is_object()) return one;
    }
    throw Error(folder.string() + ": holds no step for " + (asked.empty() ? listed(built) : asked),
                "astrape export --format " + (asked.empty() ? built.front() : asked));
}

std::unique_ptr<Engine> make_engine(const std::string& name, const Json& manifest, const Package& package,
                                    const Files& files, int threads) {
#if defined(ASTRAPE_TORCH)
    if (name == "aoti") return aoti_engine(manifest, package, files, threads);
#endif
#if defined(ASTRAPE_ONNX)
    if (name == "onnx") return onnx_engine(manifest, package, files, threads);
#endif
    throw std::logic_error("engine '" + name + "' is in no build");
}

}  // namespace

std::vector<std::string> engines() {
    return {
#if defined(ASTRAPE_ONNX)
        "onnx",
#endif
#if defined(ASTRAPE_TORCH)
        "aoti",
#endif
    };
}

std::vector<Json> first_values(const Json& written, std::size_t count) {
    std::vector<Json> values;
    const auto flatten = [&values](const auto& self, const Json& part) -> void {
        if (part.is_array()) for (const auto& item : part) self(self, item);
        else values.push_back(part);
    };
    flatten(flatten, written);
    if (values.size() != 1 && values.size() != count) throw std::invalid_argument("first values of another shape");
    return values;
}

struct Session::Inside {
    Package package;
    Values values;
    std::unique_ptr<Engine> engine;
    bool constant = false;
    std::vector<std::int64_t> given;         // of each output, frames so far
    std::vector<std::vector<float>> late;    // of each output where latency is constant: a ring of what waits
    std::vector<std::size_t> first, waiting; // of each ring, in numbers
    std::vector<char> silent;
    std::int64_t filled = 0, position = 0;
    bool stale = true, deaf = false;

    Inside(const fs::path& folder, const Streaming& how) {
        const auto manifest = read_manifest(folder);
        package = package_of(manifest, folder);
        try {
            const auto chosen = chosen_engine(manifest, folder, how.engine);
            const auto files = checked_files(manifest, folder);
            open(make_engine(chosen, manifest, package, files, how.threads), how.constant_latency);
        } catch (const Error&) {
            throw;
        } catch (const std::exception& error) {  // of JSON, of numbers, of a runtime
            throw damaged(folder, error);
        }
    }

    void open(std::unique_ptr<Engine> made, bool constant_latency) {
        engine = std::move(made);
        constant = constant_latency;
        const auto count = package.outputs.size();
        given.resize(count);
        silent.resize(count);
        first.resize(count);
        waiting.resize(count);
        for (const auto& one : package.outputs) {
            const auto most = one.host_latency - one.latency + one.frames;
            late.emplace_back(constant ? static_cast<std::size_t>(most * one.channels) : 0);
        }
        for (const auto& one : package.controls) if (one.standard) set(one.name, *one.standard);
        reset();
    }

    void reset() {
        engine->reset();
        std::fill(given.begin(), given.end(), 0);
        std::fill(silent.begin(), silent.end(), 0);
        for (std::size_t i = 0; i < package.outputs.size(); ++i) {
            const auto& one = package.outputs[i];
            first[i] = 0;
            waiting[i] = constant ? static_cast<std::size_t>((one.host_latency - one.latency) * one.channels) : 0;
            std::fill(late[i].begin(), late[i].end(), 0.0f);
        }
        filled = position = 0;
        deaf = false;
    }

    void set(const std::string& name_of, std::vector<float> given_values) {
        const auto& controls = package.controls;
        const auto one = std::find_if(controls.begin(), controls.end(), [&](const auto& c) { return c.name == name_of; });
        if (one == controls.end()) {
            std::vector<std::string> known;
            for (const auto& c : controls) known.push_back(c.name);
            throw Error("unknown control '" + name_of + "'", "there is: " + listed(known));
        }
        const auto size = given_values.size();
        const auto wanted = std::to_string(one->channels);
        if (size == 1) given_values.resize(one->channels, given_values[0]);
        if (given_values.size() != one->channels) {
            throw Error("control '" + name_of + "' has " + std::to_string(size) + " values",
                        "give " + wanted + ", or one for all");
        }
        for (const auto value : given_values) {
            const auto problem = "control '" + name_of + "' is " + Json(value).dump();
            if (!std::isfinite(value)) throw Error("control '" + name_of + "' is not finite", "give a number");
            if (one->minimum && value < *one->minimum) throw Error(problem, "give at least " + Json(*one->minimum).dump());
            if (one->maximum && value > *one->maximum) throw Error(problem, "give at most " + Json(*one->maximum).dump());
        }
        values[name_of] = std::move(given_values);
        stale = true;
    }

    void bring_up_to_date() {
        if (!stale) return;
        for (const auto& one : package.controls) {
            if (!values.count(one.name)) {
                throw Error("control '" + one.name + "' (" + std::to_string(one.channels) + " channels) has no value",
                            "give one");
            }
        }
        engine->prepare(values);
        stale = false;
    }

    // Frames, or silence where `x` is null.
    void push(const float* x, std::int64_t frames, Frames& out) {
        const NoDenormals guard;
        bring_up_to_date();
        out.resize(package.outputs.size());
        auto* to = engine->input();
        const auto& input = package.input;
        for (std::int64_t n = 0; n < frames; ++n) {
            for (std::int64_t c = 0; x && !deaf && c < input.channels; ++c) deaf = !std::isfinite(x[n * input.channels + c]);
            for (std::int64_t c = 0; c < input.channels; ++c) {
                to[c * input.frames + filled] = x && !deaf ? x[n * input.channels + c] : 0.0f;
            }
            ++position;
            if (++filled == input.frames) run(out);
        }
        if (constant) give(out);
    }

    void run(Frames& out) {
        engine->run();
        filled = 0;
        for (std::size_t i = 0; i < package.outputs.size(); ++i) {
            const auto& one = package.outputs[i];
            const auto* from = engine->output(i);
            for (std::int64_t n = 0; n < one.frames; ++n) {
                for (std::int64_t c = 0; !silent[i] && c < one.channels; ++c) silent[i] = !std::isfinite(from[c * one.frames + n]);
                for (std::int64_t c = 0; c < one.channels; ++c) {
                    const auto value = silent[i] ? 0.0f : from[c * one.frames + n];
                    if (constant) late[i][(first[i] + waiting[i]++) % late[i].size()] = value;
                    else out[i].push_back(value);
                }
            }
            if (!constant) given[i] += one.frames;
        }
        if (constant) give(out);
    }

    // As many frames as were heard, times the ratio of rates, rounded down: all of them wait already.
    void give(Frames& out) {
        const auto heard_for = Fraction{position, 1} / package.input.rate;
        for (std::size_t i = 0; i < package.outputs.size(); ++i) {
            const auto due = floor(heard_for * package.outputs[i].rate) - given[i];
            for (std::int64_t n = 0; n < due * package.outputs[i].channels; ++n) {
                out[i].push_back(late[i][first[i]]);
                first[i] = (first[i] + 1) % late[i].size();
                --waiting[i];
            }
            given[i] += due;
        }
    }

    void flush(Frames& out) {
        out.resize(package.outputs.size());
        const auto heard_for = Fraction{position, 1} / package.input.rate;
        std::int64_t until = position;
        std::vector<std::size_t> wanted;
        for (std::size_t i = 0; i < package.outputs.size(); ++i) {
            const auto& one = package.outputs[i];
            const auto after = constant ? one.host_latency : one.latency;
            const auto end = std::max(given[i], ceiling(heard_for * one.rate) + after);
            wanted.push_back(out[i].size() + static_cast<std::size_t>((end - given[i]) * one.channels));
            until = std::max(until, ceiling((Fraction{end, 1} / one.rate + one.framing) * package.input.rate));
        }
        push(nullptr, until - position, out);
        for (std::size_t i = 0; i < package.outputs.size(); ++i) out[i].resize(wanted[i]);
        reset();
    }
};

Session::Session(const fs::path& folder, const Streaming& how) : inside_(std::make_unique<Inside>(folder, how)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

const std::string& Session::name() const { return inside_->package.name; }
const std::string& Session::encoder() const { return inside_->package.encoder; }
const Port& Session::input() const { return inside_->package.input; }
const std::vector<Port>& Session::outputs() const { return inside_->package.outputs; }
const std::vector<Control>& Session::controls() const { return inside_->package.controls; }

std::size_t Session::output(const std::string& name) const {
    std::vector<std::string> known;
    for (std::size_t i = 0; i < outputs().size(); ++i) {
        if (outputs()[i].name == name) return i;
        known.push_back(outputs()[i].name);
    }
    throw Error("'" + inside_->package.name + "' has no output '" + name + "'", "there is: " + listed(known));
}

void Session::set(const std::string& control, const std::vector<float>& values) { inside_->set(control, values); }
void Session::push(const float* x, std::size_t frames, Frames& out) {
    inside_->push(x, static_cast<std::int64_t>(frames), out);
}
void Session::flush(Frames& out) { inside_->flush(out); }
void Session::reset() { inside_->reset(); }
bool Session::faulted() const {
    const auto& silent = inside_->silent;
    return inside_->deaf || std::any_of(silent.begin(), silent.end(), [](char one) { return one != 0; });
}

}  // namespace astrape
