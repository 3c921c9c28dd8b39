// The plugin, in the formats that DPF knows: what a host says goes in, sound and latency come out.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <memory>

#include <nlohmann/json.hpp>

#include "DistrhoPlugin.hpp"
#include "DistrhoPluginUtils.hpp"
#include "loader.hpp"
#include "parameters.hpp"
#include "table.hpp"

START_NAMESPACE_DISTRHO

namespace fs = std::filesystem;
using astrape::Kind;
using astrape::Loaded;
using astrape::Settings;
using astrape::Want;

namespace {

constexpr std::uint32_t kChannels = DISTRHO_PLUGIN_NUM_INPUTS;
constexpr std::size_t kChunk = 512;
constexpr const char* kStates[] = {"voices", "packages", "status"};
enum Status { kSpeaks, kNoPackage, kNoVoice, kFailed, kSilenced };
constexpr const char* kStatusNames[] = {"speaks", "no package", "no voice", "failed", "input was not finite"};

// Where packages and voices lie in a bundle: beside the library, or in VST3 a folder above.
fs::path resources() {
    const fs::path library = getBinaryFilename();
    const auto above = library.parent_path().parent_path() / "Resources";
    std::error_code none;
    return fs::is_directory(above, none) ? above : library.parent_path() / "resources";
}

}  // namespace

class Astrape : public Plugin {
public:
    Astrape()
        : Plugin(astrape::kParameters, 0, std::size(kStates)), library_(resources()), parameters_(astrape::parameters()),
          voices_(library_.voices(), astrape::Library::missing),
          packages_(library_.packages(), [](const std::string& name) { return astrape::Name{name}; }),
          loader_(library_, [this] { return explanation(); }) {
        for (std::uint32_t i = 0; i < astrape::kParameters; ++i) values_[i] = parameters_[i].standard;
        if (!isDummyInstance()) foretell();
    }

protected:
    const char* getLabel() const override { return kChannels == 1 ? "astrape_mono" : "astrape"; }
    const char* getDescription() const override { return "Speak in another voice, live"; }
    const char* getMaker() const override { return "astrape"; }
    const char* getLicense() const override { return "MIT"; }
    std::uint32_t getVersion() const override { return d_version(0, 1, 0); }
    std::int64_t getUniqueId() const override { return kChannels == 1 ? d_cconst('A', 's', 'r', '1') : d_cconst('A', 's', 'r', '2'); }

    void initAudioPort(bool input, std::uint32_t index, AudioPort& port) override {
        port.groupId = kChannels == 1 ? kPortGroupMono : kPortGroupStereo;
        Plugin::initAudioPort(input, index, port);
    }

    void initParameter(std::uint32_t index, Parameter& made) override {
        const auto& one = parameters_[index];
        made.symbol = one.symbol.c_str();
        made.name = one.name.c_str();
        made.unit = one.unit.c_str();
        made.description = one.about.c_str();
        made.ranges = ParameterRanges(one.standard, one.minimum, one.maximum);
        made.hints = one.kind == Kind::output ? kParameterIsOutput : one.automated ? kParameterIsAutomatable : 0;
        if (one.kind != Kind::number) made.hints |= kParameterIsInteger;
        if (index == astrape::kBypass) made.initDesignation(kParameterDesignationBypass);
        if (index == astrape::kVoice) name_values(made, voices_.names());
        if (index == astrape::kPackage) name_values(made, packages_.names());
        if (index == astrape::kSides) name_values(made, {"summed", "each"});
        if (index == astrape::kWorker) name_values(made, {"when needed", "off", "on"});
        if (index == astrape::kStatus) name_values(made, {std::begin(kStatusNames), std::end(kStatusNames)});
    }

    void initState(std::uint32_t index, State& state) override {
        state.key = kStates[index];
        state.label = kStates[index];
        state.hints = kStateIsHostReadable | kStateIsOnlyForDSP;
    }

    float getParameterValue(std::uint32_t index) const override { return values_[index].load(std::memory_order_relaxed); }

    void setParameterValue(std::uint32_t index, float value) override {
        const auto& one = parameters_[index];
        if (!std::isfinite(value)) return;
        values_[index].store(std::clamp(value, one.minimum, one.maximum), std::memory_order_relaxed);
        if (index == astrape::kPackage || index == astrape::kWorker) foretell();
    }

    // The names behind the numbers of voices and packages, so that a number means the same where other files lie.
    String getState(const char* key) const override {
        const std::string asked = key;
        if (asked == "voices") return String(listed(voices_.names()).c_str());
        if (asked == "packages") return String(listed(packages_.names()).c_str());
        return String(explanation().c_str());
    }

    void setState(const char* key, const char* text) override {
        const auto list = nlohmann::json::parse(text, nullptr, false);
        if (!list.is_array()) return;
        std::vector<std::string> names;
        for (const auto& item : list) if (item.is_string()) names.push_back(item);
        if (std::string(key) == "voices") voices_.put_first(names);
        if (std::string(key) == "packages") packages_.put_first(names);
        foretell();
    }

    void sampleRateChanged(double) override { foretell(); }
    void bufferSizeChanged(std::uint32_t) override { foretell(); }

    void activate() override {
        settle();
        running_ = true;
        incoming_.reset();
        const auto want = wanted();
        if (active_ && active_->fits(want)) {
            active_->stream->reset();
            active_->want = want;
            take(std::move(active_));
        } else {
            take(loader_.load(want));
        }
        started_ = false;
    }

    void deactivate() override { running_ = false; }

    void run(const float** in, float** out, std::uint32_t frames) override {
        turn_to_what_is_wanted();
        for (std::uint32_t at = 0; at < frames;) {
            const auto count = std::min<std::size_t>(frames - at, kChunk);
            chunk(in, out, at, count, current());
            at += static_cast<std::uint32_t>(count);
        }
        tell();
    }

private:
    // Two kinds of sound of each side, of one chunk.
    struct Pair {
        float wet[2][kChunk], dry[2][kChunk];
    };

    static void name_values(Parameter& made, const std::vector<std::string>& names) {
        const auto room = static_cast<std::size_t>(made.ranges.max - made.ranges.min) + 1;
        const auto count = std::min(names.size(), room);
        auto* values = new ParameterEnumerationValue[count];
        for (std::size_t i = 0; i < count; ++i) {
            values[i].value = made.ranges.min + static_cast<float>(i);
            values[i].label = names[i].c_str();
        }
        made.enumValues.count = static_cast<std::uint8_t>(count);
        made.enumValues.values = values;
    }

    static std::string listed(const std::vector<std::string>& names) {
        return nlohmann::json(names).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    }

    int whole(std::uint32_t index) const { return static_cast<int>(std::lround(values_[index].load(std::memory_order_relaxed))); }

    Want wanted() const {
        return {packages_.at(whole(astrape::kPackage)), rate_, static_cast<int>(kChannels),
                kChannels == 2 && whole(astrape::kSides) == 1 ? 2 : 1, static_cast<astrape::Worker>(whole(astrape::kWorker)), block_};
    }

    void settle() {
        rate_ = getSampleRate();
        block_ = getBufferSize();
    }

    // Hosts ask for the latency before they activate: the manifest says it, if all that it speaks of is there.
    void foretell() {
        if (running_) return;
        settle();
        try {
            const auto want = wanted();
            const auto package = library_.package(want.package ? want.package->name : "", rate_);
            if (package.folder != whole_) check_files(package);
            whole_ = package.folder;
            setLatency(static_cast<std::uint32_t>(astrape::Stream::latency_of(package, want.works(package))));
        } catch (const std::exception&) {
            setLatency(0);
        }
    }

    void take(std::unique_ptr<Loaded> loaded) {
        active_ = std::move(loaded);
        const auto* stream = active_->stream.get();
        setLatency(static_cast<std::uint32_t>(stream ? stream->latency() : 0));
        faded_ = 0;
    }

    void turn_to_what_is_wanted() {
        const auto want = wanted();
        if (!started_ && !(want == active_->want)) {
            // Some hosts hand their parameters over with the first block: nothing has been heard yet, so this may wait.
            take(loader_.load(want));
        }
        if (!incoming_) incoming_ = loader_.ready();
        if (incoming_ && (!(incoming_->want == want) || want == active_->want)) loader_.retire(std::move(incoming_));
        if (!incoming_ && !(want == active_->want)) loader_.ask(want);
    }

    Settings current() const { return settings_for(active_->stream.get()); }

    Settings settings_for(const astrape::Stream* stream) const {
        Settings made;
        const auto* entry = voices_.at(whole(astrape::kVoice));
        if (entry && entry->voice) made.voice = &*entry->voice;
        if (!stream) return made;
        const auto& controls = stream->package().controls;
        std::uint32_t slot = 0;
        for (std::size_t i = 0; i < controls.size(); ++i) {
            if (controls[i].channels == 1) made.values[i] = value_of(controls[i], made.voice, slot);
        }
        return made;
    }

    float value_of(const astrape::Control& control, const astrape::Voice* voice, std::uint32_t& slot) const {
        const float low = control.minimum.value_or(0), standard = control.standard ? control.standard->at(0) : low;
        const float high = control.maximum.value_or(1);
        const auto within = [&](float x) {
            if (control.minimum) x = std::max(x, *control.minimum);
            return control.maximum ? std::min(x, *control.maximum) : x;
        };
        if (control.name == "pitch") return within(values_[astrape::kPitch].load(std::memory_order_relaxed));
        for (std::uint32_t i = 0; i < astrape::kNamedCount; ++i) {
            if (control.name != astrape::kShipped[i].symbol) continue;
            const auto value = values_[astrape::kNamed + i].load(std::memory_order_relaxed);
            if (control.name != "register" || value >= low) return within(value);
            return within(voice && voice->median_f0 ? *voice->median_f0 : standard);
        }
        if (slot >= astrape::kSlotCount) return standard;
        const auto value = values_[astrape::kSlots + slot++].load(std::memory_order_relaxed);
        return value == 0 ? standard : within(low + value * (high - low));
    }

    bool speaks(const Loaded& loaded, const Settings& settings) const {
        if (!loaded.stream || loaded.stream->failed()) return false;
        const auto& package = loaded.stream->package();
        const bool listens = std::any_of(package.controls.begin(), package.controls.end(), [](const auto& c) { return c.name == "speaker"; });
        if (!listens) return true;
        return settings.voice && (package.encoder.empty() || settings.voice->encoder.empty() || settings.voice->encoder == package.encoder);
    }

    // What a stream makes of a chunk, for each of the plugin's channels.
    void through(Loaded& loaded, const float* const* in, std::size_t count, const Settings& settings, Pair& pair) {
        float *wet[2] = {pair.wet[0], pair.wet[1]}, *dry[2] = {pair.dry[0], pair.dry[1]};
        if (!loaded.stream) {
            for (std::uint32_t c = 0; c < kChannels; ++c) {
                std::copy_n(in[c], count, dry[c]);
                std::copy_n(in[c], count, wet[c]);
            }
            return;
        }
        loaded.stream->process(in, wet, dry, count, settings);
    }

    void chunk(const float** in, float** out, std::uint32_t at, std::size_t count, const Settings& settings) {
        const float* from[2] = {in[0] + at, in[kChannels - 1] + at};
        through(*active_, from, count, settings, now_);
        if (incoming_) through(*incoming_, from, count, settings_for(incoming_->stream.get()), then_);
        aim(speaks(*active_, settings));
        for (std::size_t n = 0; n < count; ++n) {
            step_ramps();
            const auto fade = faded_;
            if (incoming_) fade_over();
            for (std::uint32_t c = 0; c < kChannels; ++c) {
                auto y = mixed(now_, c, n);
                if (fade > 0) y += fade * (mixed(then_, c, n) - y);
                out[c][at + n] = y;
            }
        }
        if (incoming_ && faded_ >= 1) {
            loader_.retire(std::move(active_));
            take(std::move(incoming_));
            heard_ = 0;
        }
    }

    float mixed(const Pair& pair, std::uint32_t c, std::size_t n) const {
        if (wet_ == 1 && dry_ == 0) return pair.wet[c][n];
        return wet_ * pair.wet[c][n] + dry_ * pair.dry[c][n];
    }

    // A stream that comes is run beside the other until it has something to say, and then faded over to.
    void fade_over() {
        const auto* stream = incoming_->stream.get();
        const auto length = stream ? stream->step() : static_cast<std::int64_t>(kChunk);
        if (++heard_ <= (stream ? stream->latency() + 2 * length : 0)) return;
        faded_ = std::min(1.0f, faded_ + 1.0f / static_cast<float>(length));
    }

    // How much of the voice and of the sound as it came is wanted, gone to in a straight line over 10 ms.
    void aim(bool speaks) {
        const bool bypassed = whole(astrape::kBypass) == 1;
        const auto gain = static_cast<float>(std::pow(10.0, values_[astrape::kGain].load(std::memory_order_relaxed) / 20.0));
        const auto mix = speaks ? values_[astrape::kMix].load(std::memory_order_relaxed) / 100 : 0.0f;
        // Without a voice sound passes as it came.
        const auto loud = bypassed || !speaks ? 1.0f : gain;
        const auto wet = bypassed ? 0 : loud * mix, dry = bypassed ? 1 : loud * (1 - mix);
        if (!started_) {
            wet_ = wet_goal_ = wet;
            dry_ = dry_goal_ = dry;
            started_ = true;
        }
        if (wet == wet_goal_ && dry == dry_goal_) return;
        wet_goal_ = wet;
        dry_goal_ = dry;
        left_ = static_cast<int>(rate_ / 100);
    }

    void step_ramps() {
        if (left_ == 0) return;
        wet_ += (wet_goal_ - wet_) / static_cast<float>(left_);
        dry_ += (dry_goal_ - dry_) / static_cast<float>(left_);
        if (--left_ == 0) {
            wet_ = wet_goal_;
            dry_ = dry_goal_;
        }
    }

    Status status() const {
        const auto* stream = active_ ? active_->stream.get() : nullptr;
        if (!stream) return kNoPackage;
        if (stream->failed()) return kFailed;
        if (!speaks(*active_, current())) return kNoVoice;
        return stream->faulted() ? kSilenced : kSpeaks;
    }

    void tell() {
        const auto* stream = active_->stream.get();
        const auto matter = status();
        const auto now = static_cast<float>(matter);
        if (values_[astrape::kStatus].exchange(now) != now && matter != kSpeaks) loader_.say();
        values_[astrape::kLate] = stream ? static_cast<float>(std::min<std::int64_t>(stream->late(), 1'000'000)) : 0.0f;
        values_[astrape::kLoad] = stream ? std::min(1000.0f, std::ceil(100 * stream->load())) : 0.0f;
    }

    // Of the status, in words; from the thread that saves states.
    std::string explanation() const {
        const auto told = loader_.problem();
        switch (whole(astrape::kStatus)) {
        case kNoPackage: return told;
        case kNoVoice: {
            const auto* entry = voices_.at(whole(astrape::kVoice));
            if (!entry) {
                return "voice " + std::to_string(whole(astrape::kVoice)) + " is not there, sound passes through; hint: take 0 to " +
                       std::to_string(voices_.names().size() - 1) + ", or copy a voice to ~/.local/share/astrape";
            }
            if (!entry->voice) return entry->problem;
            return "voice '" + entry->name + "' is of the encoder '" + entry->voice->encoder +
                   "', and the package takes those of another: sound passes through; hint: build the voicebank with that one";
        }
        case kFailed: return "a step ended with an error, sound passes through; hint: activate the plugin anew, export anew";
        case kSilenced: return "the input was not finite and is silent from there on; hint: activate the plugin anew";
        default: return told.empty() ? "speaks" : told;
        }
    }

    astrape::Library library_;
    std::vector<astrape::Parameter> parameters_;
    astrape::Table<astrape::Entry> voices_;
    astrape::Table<astrape::Name> packages_;
    std::array<std::atomic<float>, astrape::kParameters> values_{};
    double rate_ = 0;
    std::int64_t block_ = 0;
    fs::path whole_;
    std::unique_ptr<Loaded> active_, incoming_;
    Pair now_, then_;
    bool running_ = false, started_ = false;
    float wet_ = 1, dry_ = 0, wet_goal_ = 1, dry_goal_ = 0, faded_ = 0;
    std::int64_t heard_ = 0;
    int left_ = 0;
    astrape::Loader loader_;  // last: its thread ends first

    DISTRHO_DECLARE_NON_COPYABLE(Astrape)
};

Plugin* createPlugin() { return new Astrape(); }

END_NAMESPACE_DISTRHO
