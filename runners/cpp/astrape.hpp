// A stream through what `astrape export` wrote, with ONNX Runtime or libtorch and without Python. See docs/export.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace astrape {

// What is wrong, and "hint: " with what to do.
class Error : public std::runtime_error {
public:
    Error(const std::string& problem, const std::string& hint) : std::runtime_error(problem + "; hint: " + hint) {}
};

// An exact number, reduced, with a denominator above 0.
struct Fraction {
    std::int64_t over = 0, under = 1;
};

// An input or output. Latencies are in its own frames and 0 of inputs.
struct Port {
    std::string name;
    Fraction rate;
    std::int64_t channels = 1;
    std::int64_t frames = 0;        // of one step
    std::int64_t latency = 0;       // frame n stands for the input at n - latency
    std::int64_t host_latency = 0;  // with the wait for whole steps: what a host compensates
    Fraction framing;               // that wait, in seconds
};

struct Control {
    std::string name;
    std::size_t channels = 1;
    std::optional<std::vector<float>> standard;  // one value, or one a channel
    std::optional<float> minimum, maximum;
};

// What a folder that `astrape export` wrote says of itself.
struct Package {
    std::filesystem::path folder;
    std::string name;      // of the recipe
    std::string encoder;   // that its voices are of; empty where the weights do not say
    std::string licence;   // of the weights
    Port input;
    std::vector<Port> outputs;
    std::vector<Control> controls;
};

// Reads the manifest alone, which takes no time and no model. Throws Error. One of one input and one row
// (`--batch 1`) is what this can run.
Package read_package(const std::filesystem::path& folder);

// Holds every file of a package against its checksum. Throws Error.
void check_files(const Package& package);

// A voice, as astrape/voice/container.py lays it out.
struct Voice {
    std::string encoder;             // of which it is a voice; empty where it does not say
    std::vector<float> embedding;    // for the control 'speaker'
    std::optional<float> median_f0;  // Hz, for the control 'register'
};

// Holds the file against its checksum where it has one. Throws Error.
Voice read_voice(const std::filesystem::path& file);

// What this library was built with: "onnx" (ONNX Runtime), "aoti" (packages of AOTInductor, on libtorch) or both.
std::vector<std::string> engines();

// How a session runs.
struct Streaming {
    std::string engine;             // empty: the first of engines() that the folder has a step for
    int threads = 1;                // of a step
    bool constant_latency = false;  // as many frames come out as go in, times the ratio of rates, rounded down
};

// One for each output, in the order of Session::outputs: frames are appended, their channels interleaved.
using Frames = std::vector<std::vector<float>>;

// One stream. Not for two threads at once.
class Session {
public:
    // Reads the folder and holds every file against its checksum before any of them is loaded. A package of AOTInductor
    // is code: give it none but your own. It is refused on other machines than those it was made for. Throws Error.
    explicit Session(const std::filesystem::path& folder, const Streaming& how = {});
    ~Session();
    Session(Session&&) noexcept;
    Session& operator=(Session&&) noexcept;

    const std::string& name() const;
    const std::string& encoder() const;  // that its voices are of; empty where the weights do not say
    const Port& input() const;
    const std::vector<Port>& outputs() const;
    const std::vector<Control>& controls() const;
    std::size_t output(const std::string& name) const;  // its index; throws Error where there is none

    // Hold a control's value, one number or one a channel, from the next push on. Throws Error, and changes nothing then.
    void set(const std::string& control, const std::vector<float>& values);

    // Take any number of frames, none included, and append what whole steps give; with constant latency, as many frames
    // as were taken: frame n stands for the input at n - host_latency, and before the first there is silence. The
    // session takes all its memory in the constructor, and `out` grows as a vector does, so reserve it where that
    // matters; what a runtime takes for a call is its own. A control without a default must have been set. From the
    // first frame that is not finite on, the input is heard as silence.
    void push(const float* interleaved, std::size_t frames, Frames& out);

    // End the stream: append exactly what is missing, and start anew. Every output then has had the input's length
    // (times the ratio of rates) and its latency, at the host where that is constant.
    void flush(Frames& out);

    // Start anew at time zero. Controls stay.
    void reset();

    // Whether something not finite was silenced since the last reset.
    bool faulted() const;

private:
    struct Inside;
    std::unique_ptr<Inside> inside_;
};

}  // namespace astrape
