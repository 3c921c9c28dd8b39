#include "engine.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include <onnxruntime_cxx_api.h>

namespace astrape {
namespace {

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

    void first(const Json& written) {
        const auto values = first_values(written, count);
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

class OnnxEngine : public Engine {
public:
    OnnxEngine(const Json& manifest, const Package& package, const Files& files, int threads) {
        for (const auto& item : manifest.at("state")) first_[item.at("name")] = item.at("first");
        const auto& onnx = manifest.at("onnx");
        const auto wanted = options(threads);
        step_ = std::make_unique<Model>(environment_, files.at(onnx.at("step")), wanted);
        if (!onnx.at("controls").is_null()) {
            prepare_ = std::make_unique<Model>(environment_, files.at(onnx.at("controls")), wanted);
        }
        bind(package);
    }

    float* input() override { return heard_->floats(); }
    const float* output(std::size_t index) override { return given_by_[index]->floats(); }

    void reset() override {
        at_ = 0;
        for (const auto& [leaf, value] : first_) step_->entering.at("state." + leaf).first(value);
    }

    void prepare(const Values& values) override {
        if (!prepare_) return;
        Ort::IoBinding binding(prepare_->session);
        for (auto& [leaf, tensor] : prepare_->entering) {
            const auto& held = values.at(leaf.substr(8));  // after "control."
            std::copy_n(held.begin(), std::min(held.size(), tensor.count), tensor.floats());
            binding.BindInput(leaf.c_str(), tensor.value);
        }
        for (auto& [leaf, tensor] : prepare_->leaving) binding.BindOutput(leaf.c_str(), tensor.value);
        prepare_->session.Run(Ort::RunOptions{nullptr}, binding);
        for (auto& [leaf, tensor] : prepare_->leaving) {
            auto& to = step_->entering.at(leaf);
            std::memcpy(to.value.GetTensorMutableRawData(), tensor.value.GetTensorRawData(), to.bytes());
        }
    }

    void run() override {
        step_->session.Run(Ort::RunOptions{nullptr}, *bindings_[at_]);
        at_ = 1 - at_;
    }

private:
    Ort::Env environment_{ORT_LOGGING_LEVEL_ERROR, "astrape"};
    std::map<std::string, Json> first_;
    std::unique_ptr<Model> step_, prepare_;
    // Both ways between two sets of state: one is read while the other is written.
    std::array<std::unique_ptr<Ort::IoBinding>, 2> bindings_;
    Tensor* heard_ = nullptr;
    std::vector<Tensor*> given_by_;
    int at_ = 0;

    void bind(const Package& package) {
        heard_ = &port_of(step_->entering, "input.", package.input);
        for (const auto& one : package.outputs) given_by_.push_back(&port_of(step_->leaving, "output.", one));
        for (int way = 0; way < 2; ++way) {
            auto& binding = bindings_[way] = std::make_unique<Ort::IoBinding>(step_->session);
            for (auto& [leaf, tensor] : step_->entering) {
                if (!begins(leaf, "state.")) {
                    binding->BindInput(leaf.c_str(), tensor.value);
                    continue;
                }
                const auto after = "next." + leaf.substr(6);
                auto& other = step_->leaving.at(after);
                if (other.type != tensor.type || other.count != tensor.count || !first_.count(leaf.substr(6))) {
                    throw std::invalid_argument("state '" + leaf + "' is not that of the manifest");
                }
                binding->BindInput(leaf.c_str(), way ? other.value : tensor.value);
                binding->BindOutput(after.c_str(), way ? tensor.value : other.value);
            }
            for (auto& [leaf, tensor] : step_->leaving) {
                if (!begins(leaf, "next.")) binding->BindOutput(leaf.c_str(), tensor.value);
            }
        }
    }

    static Tensor& port_of(Tensors& tensors, const std::string& prefix, const Port& port) {
        auto& tensor = tensors.at(prefix + port.name);
        if (tensor.type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT ||
            tensor.count != static_cast<std::size_t>(port.channels * port.frames)) {
            throw std::invalid_argument("'" + port.name + "' of the model is not that of the manifest");
        }
        return tensor;
    }
};

}  // namespace

std::unique_ptr<Engine> onnx_engine(const Json& manifest, const Package& package, const Files& files, int threads) {
    return std::make_unique<OnnxEngine>(manifest, package, files, threads);
}

}  // namespace astrape
