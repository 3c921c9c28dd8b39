// A step in some runtime, behind one face. Not for others to include.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "files.hpp"

namespace astrape {

using Files = std::map<std::string, std::string>;                // what is in them, by name
using Values = std::map<std::string, std::vector<float>>;        // of controls

class Engine {
public:
    virtual ~Engine() = default;

    // (channels, frames), to be filled before a call.
    virtual float* input() = 0;

    // Of the last call, (channels, frames), in the order of Package::outputs.
    virtual const float* output(std::size_t index) = 0;

    // Derive from all controls what the calls from now on take.
    virtual void prepare(const Values& controls) = 0;

    // One call: from the input and the state to outputs and the next state.
    virtual void run() = 0;

    // The state at time zero.
    virtual void reset() = 0;
};

// Of files whose checksums were looked at. They throw what their runtimes throw.
std::unique_ptr<Engine> onnx_engine(const Json& manifest, const Package& package, const Files& files, int threads);
std::unique_ptr<Engine> aoti_engine(const Json& manifest, const Package& package, const Files& files, int threads);

// First values as a manifest has them, one for all of `count` or each, in a list of lists.
std::vector<Json> first_values(const Json& written, std::size_t count);

}  // namespace astrape
