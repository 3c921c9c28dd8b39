#include "astrape.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>

#include <onnxruntime_cxx_api.h>

#include "files.hpp"

namespace astrape {
namespace {

namespace fs = std::filesystem;

// A tensor with memory of its own, zeros at first.
struct Tensor {
    Ort::Value value{nullptr};
    std::size_t count = 0;
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;

    explicit Tensor(const Ort::TypeInfo& info) {
        const auto wanted = info.GetTensorTypeAndShapeInfo();
        const auto shape = wanted.GetShape();
        if (std::any_of(shape.begin(), shape.end(), [](auto size) { return size < 0; })) {
            throw std::invalid_argument("a model's shape is not static");
        }
        type = wanted.GetElementType();
        count = wanted.GetElementCount();
        Ort::AllocatorWithDefaultOptions allocator;
        value = Ort::Value::CreateTensor(allocator, shape.data(), shape.size(), type);
        std::memset(value.GetTensorMutableRawData(), 0, bytes());
    }

    float* floats() { return value.GetTensorMutableData<float>(); }

    std::size_t width() const {
        switch (type) {
            case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL: return 1;
            case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
            case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32: return 4;
            case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE:
            case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64: return 8;
            default: throw std::invalid_argument("a model has a tensor of a type that no export has");
        }
    }

    std::size_t bytes() const { return count * width(); }

    template <class T> void fill(const std::vector<Json>& values) {
        auto* to = value.GetTensorMutableData<T>();
        for (std::size_t i = 0; i < count; ++i) to[i] = values[values.size() == 1 ? 0 : i].get<T>();
    }

    // One value for all, or all of them in a list of lists.
    void first(const Json& written) {
        std::vector<Json> values;
        const auto flatten = [&values](const auto& self, const Json& part) -> void {
            if (part.is_array()) for (const auto& item : part) self(self, item);
            else values.push_back(part);
        };
        flatten(flatten, written);
        if (values.size() != 1 && values.size() != count) throw std::invalid_argument("first values of another shape");
        switch (type) {
            case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL: return fill<bool>(values);
            case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return fill<float>(values);
            case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32: return fill<std::int32_t>(values);
            case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE: return fill<double>(values);
            default: return fill<std::int64_t>(values);
        }
    }
};

using Tensors = std::map<std::string, Tensor>;

// A model, and a tensor for each of its inputs and outputs, by the names they have there.
struct Model {
    Ort::Session session;
    Tensors entering, leaving;

    Model(Ort::Env& environment, const std::string& bytes, const Ort::SessionOptions& options)
        : session(environment, bytes.data(), bytes.size(), options) {
        Ort::AllocatorWithDefaultOptions allocator;
        for (std::size_t i = 0; i < session.GetInputCount(); ++i) {
            entering.emplace(session.GetInputNameAllocated(i, allocator).get(), Tensor(session.GetInputTypeInfo(i)));
        }
        for (std::size_t i = 0; i < session.GetOutputCount(); ++i) {
            leaving.emplace(session.GetOutputNameAllocated(i, allocator).get(), Tensor(session.GetOutputTypeInfo(i)));
        }
    }
};

bool begins(const std::string& text, const std::string& with) { return text.compare(0, with.size(), with) == 0; }

Ort::SessionOptions options(int threads) {
    Ort::SessionOptions made;
    made.SetIntraOpNumThreads(threads);
    made.SetInterOpNumThreads(1);
    made.SetLogSeverityLevel(3);
    made.SetExecutionMode(ORT_SEQUENTIAL);
    made.AddConfigEntry("session.set_denormal_as_zero", "1");
    made.AddConfigEntry("session.intra_op.allow_spinning", "0");
    return made;
}

}  // namespace

struct Session::Inside {
    Ort::Env environment{ORT_LOGGING_LEVEL_ERROR, "astrape"};
    Package package;
    std::map<std::string, Json> first;
    std::map<std::string, std::vector<float>> values;
    std::unique_ptr<Model> step, prepare;
    // Both ways between two sets of state: one is read while the other is written.
    std::array<std::unique_ptr<Ort::IoBinding>, 2> bindings;
    Tensor* heard = nullptr;
    std::vector<Tensor*> given_by;
    std::vector<std::int64_t> given;
    std::vector<char> silent;
    std::int64_t filled = 0, position = 0;
    int at = 0;
    bool stale = true, deaf = false;

    Inside(const fs::path& folder, int threads) {
        const auto manifest = read_manifest(folder);
        package = package_of(manifest, folder);
        try {
            read(folder, manifest, threads);
        } catch (const Error&) {
            throw;
        } catch (const std::exception& error) {  // of JSON, of numbers, of ONNX Runtime
            throw damaged(folder, error);
        }
    }

    void read(const fs::path& folder, const Json& manifest, int threads) {
        for (const auto& item : manifest.at("state")) first[item.at("name")] = item.at("first");

        const auto files = checked_files(manifest, folder);
        const auto& onnx = manifest.at("onnx");
        const auto wanted = options(threads);
        step = std::make_unique<Model>(environment, files.at(onnx.at("step")), wanted);
        if (!onnx.at("controls").is_null()) {
            prepare = std::make_unique<Model>(environment, files.at(onnx.at("controls")), wanted);
        }
        bind();
        for (const auto& one : package.controls) if (one.standard) set(one.name, *one.standard);
        reset();
    }

    void bind() {
        heard = &port_of(step->entering, "input.", package.input);
        for (const auto& one : package.outputs) given_by.push_back(&port_of(step->leaving, "output.", one));
        for (int way = 0; way < 2; ++way) {
            auto& binding = bindings[way] = std::make_unique<Ort::IoBinding>(step->session);
            for (auto& [leaf, tensor] : step->entering) {
                if (!begins(leaf, "state.")) {
                    binding->BindInput(leaf.c_str(), tensor.value);
                    continue;
                }
                const auto after = "next." + leaf.substr(6);
                auto& other = step->leaving.at(after);
                if (other.type != tensor.type || other.count != tensor.count || !first.count(leaf.substr(6))) {
                    throw std::invalid_argument("state '" + leaf + "' is not that of the manifest");
                }
                binding->BindInput(leaf.c_str(), way ? other.value : tensor.value);
                binding->BindOutput(after.c_str(), way ? tensor.value : other.value);
            }
            for (auto& [leaf, tensor] : step->leaving) {
                if (!begins(leaf, "next.")) binding->BindOutput(leaf.c_str(), tensor.value);
            }
        }
        given.resize(package.outputs.size());
        silent.resize(package.outputs.size());
    }

    static Tensor& port_of(Tensors& tensors, const std::string& prefix, const Port& port) {
        auto& tensor = tensors.at(prefix + port.name);
        if (tensor.type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT ||
            tensor.count != static_cast<std::size_t>(port.channels * port.frames)) {
            throw std::invalid_argument("'" + port.name + "' of the model is not that of the manifest");
        }
        return tensor;
    }

    void reset() {
        at = 0;
        for (const auto& [leaf, value] : first) step->entering.at("state." + leaf).first(value);
        std::fill(given.begin(), given.end(), 0);
        std::fill(silent.begin(), silent.end(), 0);
        filled = position = 0;
        deaf = false;
    }

    void set(const std::string& name_of, std::vector<float> given_values) {
        const auto& controls = package.controls;
        const auto one = std::find_if(controls.begin(), controls.end(), [&](const auto& c) { return c.name == name_of; });
        if (one == controls.end()) {
            std::string known;
            for (const auto& c : controls) known += (known.empty() ? "" : ", ") + c.name;
            throw Error("unknown control '" + name_of + "'", "there is: " + (known.empty() ? "none" : known));
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
        if (prepare) {
            Ort::IoBinding binding(prepare->session);
            for (auto& [leaf, tensor] : prepare->entering) {
                const auto& held = values.at(leaf.substr(8));  // after "control."
                std::copy_n(held.begin(), std::min(held.size(), tensor.count), tensor.floats());
                binding.BindInput(leaf.c_str(), tensor.value);
            }
            for (auto& [leaf, tensor] : prepare->leaving) binding.BindOutput(leaf.c_str(), tensor.value);
            prepare->session.Run(Ort::RunOptions{nullptr}, binding);
            for (auto& [leaf, tensor] : prepare->leaving) {
                auto& to = step->entering.at(leaf);
                std::memcpy(to.value.GetTensorMutableRawData(), tensor.value.GetTensorRawData(), to.bytes());
            }
        }
        stale = false;
    }

    // Frames, or silence where `x` is null.
    void push(const float* x, std::int64_t frames, Frames& out) {
        bring_up_to_date();
        out.resize(package.outputs.size());
        auto* to = heard->floats();
        const auto& input = package.input;
        for (std::int64_t n = 0; n < frames; ++n) {
            for (std::int64_t c = 0; x && !deaf && c < input.channels; ++c) deaf = !std::isfinite(x[n * input.channels + c]);
            for (std::int64_t c = 0; c < input.channels; ++c) {
                to[c * input.frames + filled] = x && !deaf ? x[n * input.channels + c] : 0.0f;
            }
            ++position;
            if (++filled == input.frames) run(out);
        }
    }

    void run(Frames& out) {
        step->session.Run(Ort::RunOptions{nullptr}, *bindings[at]);
        at = 1 - at;
        filled = 0;
        for (std::size_t i = 0; i < package.outputs.size(); ++i) {
            const auto& one = package.outputs[i];
            const auto* from = given_by[i]->floats();
            for (std::int64_t n = 0; n < one.frames; ++n) {
                for (std::int64_t c = 0; !silent[i] && c < one.channels; ++c) silent[i] = !std::isfinite(from[c * one.frames + n]);
                for (std::int64_t c = 0; c < one.channels; ++c) out[i].push_back(silent[i] ? 0.0f : from[c * one.frames + n]);
            }
            given[i] += one.frames;
        }
    }

    void flush(Frames& out) {
        out.resize(package.outputs.size());
        const auto heard_for = Fraction{position, 1} / package.input.rate;
        std::int64_t until = position;
        std::vector<std::size_t> wanted;
        for (std::size_t i = 0; i < package.outputs.size(); ++i) {
            const auto& one = package.outputs[i];
            const auto end = std::max(given[i], ceiling(heard_for * one.rate) + one.latency);
            wanted.push_back(out[i].size() + static_cast<std::size_t>((end - given[i]) * one.channels));
            until = std::max(until, ceiling((Fraction{end, 1} / one.rate + one.framing) * package.input.rate));
        }
        push(nullptr, until - position, out);
        for (std::size_t i = 0; i < package.outputs.size(); ++i) out[i].resize(wanted[i]);
        reset();
    }
};

Session::Session(const fs::path& folder, int threads) : inside_(std::make_unique<Inside>(folder, threads)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

const std::string& Session::name() const { return inside_->package.name; }
const Port& Session::input() const { return inside_->package.input; }
const std::vector<Port>& Session::outputs() const { return inside_->package.outputs; }
const std::vector<Control>& Session::controls() const { return inside_->package.controls; }

std::size_t Session::output(const std::string& name) const {
    std::string known;
    for (std::size_t i = 0; i < outputs().size(); ++i) {
        if (outputs()[i].name == name) return i;
        known += (i ? ", " : "") + outputs()[i].name;
    }
    throw Error("'" + inside_->package.name + "' has no output '" + name + "'", "there is: " + known);
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
