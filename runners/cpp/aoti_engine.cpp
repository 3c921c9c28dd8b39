#include "engine.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include <sys/utsname.h>

#include <ATen/Parallel.h>
#include <ATen/Tensor.h>
#include <ATen/Version.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/headeronly/version.h>

namespace astrape {
namespace {

namespace fs = std::filesystem;

using Loader = torch::inductor::AOTIModelPackageLoader;

at::ScalarType type_of(const std::string& name) {
    if (name == "float32") return at::kFloat;
    if (name == "float64") return at::kDouble;
    if (name == "int64") return at::kLong;
    if (name == "int32") return at::kInt;
    if (name == "bool") return at::kBool;
    throw std::invalid_argument("a leaf of type '" + name + "', which no export has");
}

at::Tensor leaf(const Json& item) {
    return at::zeros(item.at("shape").get<std::vector<std::int64_t>>(), type_of(item.at("dtype")));
}

at::Tensor port_of(const Port& port) { return at::zeros({1, port.channels, port.frames}); }

template <class T> void fill(at::Tensor& tensor, const std::vector<Json>& values) {
    auto* to = tensor.data_ptr<T>();
    for (std::int64_t i = 0; i < tensor.numel(); ++i) to[i] = values[values.size() == 1 ? 0 : i].get<T>();
}

void set_first(at::Tensor& tensor, const Json& written) {
    const auto values = first_values(written, static_cast<std::size_t>(tensor.numel()));
    switch (tensor.scalar_type()) {
        case at::kBool: return fill<bool>(tensor, values);
        case at::kInt: return fill<std::int32_t>(tensor, values);
        case at::kLong: return fill<std::int64_t>(tensor, values);
        case at::kDouble: return fill<double>(tensor, values);
        default: return fill<float>(tensor, values);
    }
}

// Packages call this library's functions and hold instructions of one family of processors.
void check_family(const Package& package, const Json& family) {
    utsname system{};
    uname(&system);
    const std::pair<const char*, std::string> here[] = {
        {"system", system.sysname},
        {"machine", system.machine},
        {"capability", at::get_cpu_capability()},
        {"torch", std::to_string(TORCH_VERSION_MAJOR) + "." + std::to_string(TORCH_VERSION_MINOR) + "." +
                      std::to_string(TORCH_VERSION_PATCH)},
    };
    for (const auto& [field, found] : here) {
        const auto wanted = family.at(field).get<std::string>();
        if (wanted != found) {
            throw Error(package.folder.string() + ": its package is for other machines or another PyTorch (" + field +
                            " " + wanted + ", and here it is " + found + ")",
                        "astrape export --format aoti here, or run its ONNX where it has one");
        }
    }
}

std::string taken(const std::string& kind, const Json& items, bool frames) {
    std::string text;
    for (const auto& item : items) {
        auto type = std::string("float32"), shape = std::string("1x");  // of the one row
        if (item.contains("shape")) {
            type = item.at("dtype");
            shape.clear();
            for (const auto& size : item.at("shape")) shape += (shape.empty() ? "" : "x") + size.dump();
        } else {
            shape += item.at("channels").dump() + (frames ? "x" + item.at("frames").dump() : "");
        }
        text += kind + "." + item.at("name").get<std::string>() + " " + type + " " + shape + "; ";
    }
    return text;
}

// What a package says of itself: all that it takes and gives. It reads and writes beyond what is smaller than that.
void check_facts(Loader& package, const Json& manifest) {
    const auto facts = package.get_metadata();
    const auto said = facts.find("astrape");
    const auto wanted = taken("control", manifest.at("controls"), false) + taken("input", manifest.at("inputs"), true) +
                        taken("prepared", manifest.at("prepared"), true) + taken("state", manifest.at("state"), true) +
                        taken("output", manifest.at("outputs"), true);
    if (said == facts.end() || said->second + "; " != wanted) {
        throw std::invalid_argument("its package was compiled for another step than this manifest tells of");
    }
}

// A folder that is gone with this.
class Temporary {
public:
    Temporary() {
        auto name = (fs::temp_directory_path() / "astrape-XXXXXX").string();
        if (mkdtemp(name.data()) == nullptr) throw Error(name + ": cannot be made", "set TMPDIR to a folder of yours");
        path = name;
    }
    ~Temporary() {
        std::error_code ignored;
        fs::remove_all(path, ignored);
    }
    Temporary(const Temporary&) = delete;
    Temporary& operator=(const Temporary&) = delete;

    fs::path path;
};

// From a copy of its own: what is run is what was checked.
std::unique_ptr<Loader> opened(const std::string& bytes, const Json& manifest) {
    const Temporary folder;
    const auto file = folder.path / "model.pt2";
    std::ofstream sink(file, std::ios::binary);
    sink.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    sink.close();
    if (!sink) throw Error(file.string() + ": cannot be written", "set TMPDIR to a folder with more room");
    auto made = std::make_unique<Loader>(file.string());
    check_facts(*made, manifest);
    return made;
}

class AotiEngine : public Engine {
public:
    AotiEngine(const Json& manifest, const Package& package, const Files& files, int threads) {
        const auto& aoti = manifest.at("aoti");
        check_family(package, aoti.at("family"));
        at::set_num_threads(threads);
        step_ = opened(files.at(aoti.at("step")), manifest);
        if (!aoti.at("controls").is_null()) prepare_ = opened(files.at(aoti.at("controls")), manifest);
        arguments_.push_back(port_of(package.input));
        for (const auto& item : manifest.at("prepared")) arguments_.push_back(leaf(item));
        prepared_ = arguments_.size() - 1;
        for (const auto& item : manifest.at("state")) {
            arguments_.push_back(leaf(item));
            first_.push_back(item.at("first"));
        }
        for (const auto& one : package.controls) {
            controls_.push_back(at::zeros({1, static_cast<std::int64_t>(one.channels)}));
            names_.push_back(one.name);
        }
        for (const auto& one : package.outputs) sizes_.push_back(one.channels * one.frames);
    }

    float* input() override { return arguments_.front().data_ptr<float>(); }
    const float* output(std::size_t index) override { return given_[index].const_data_ptr<float>(); }

    void reset() override {
        for (std::size_t i = 0; i < first_.size(); ++i) set_first(arguments_[1 + prepared_ + i], first_[i]);
    }

    void prepare(const Values& values) override {
        if (!prepare_) return;
        for (std::size_t i = 0; i < controls_.size(); ++i) {
            const auto& held = values.at(names_[i]);
            std::copy(held.begin(), held.end(), controls_[i].data_ptr<float>());
        }
        const auto found = prepare_->run(controls_);
        if (found.size() != prepared_) throw std::invalid_argument("its package prepares other values");
        for (std::size_t i = 0; i < prepared_; ++i) arguments_[1 + i].copy_(found[i]);
    }

    void run() override {
        given_ = step_->run(arguments_);
        if (given_.size() != sizes_.size()) throw std::invalid_argument("its package has other outputs");
        for (std::size_t i = 0; i < sizes_.size(); ++i) {
            if (given_[i].numel() != sizes_[i]) throw std::invalid_argument("its package has outputs of another size");
            given_[i] = given_[i].contiguous();  // the compiler chooses how they lie
        }
    }

private:
    std::unique_ptr<Loader> step_, prepare_;
    std::vector<at::Tensor> arguments_, given_, controls_;
    std::vector<Json> first_;
    std::vector<std::string> names_;
    std::vector<std::int64_t> sizes_;
    std::size_t prepared_ = 0;
};

}  // namespace

std::unique_ptr<Engine> aoti_engine(const Json& manifest, const Package& package, const Files& files, int threads) {
    return std::make_unique<AotiEngine>(manifest, package, files, threads);
}

}  // namespace astrape
