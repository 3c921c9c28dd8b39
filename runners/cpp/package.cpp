#include <array>
#include <cstring>
#include <fstream>
#include <iterator>
#include <numeric>

#include <openssl/evp.h>

#include "files.hpp"

namespace astrape {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "astrape-export";
constexpr int kVersion = 1;
constexpr const char* kWhole = "name a whole folder that astrape export wrote";

// Of a voice: see astrape/voice/container.py.
constexpr const char* kSeal = "\"content_sha256\":\"";
constexpr std::size_t kDigest = 64, kEmbeddingBytes = 512, kHeaderBytes = 48, kLargestVoice = 2 << 20;

Fraction reduced(std::int64_t over, std::int64_t under) {
    const auto common = std::gcd(over, under);
    return {over / common, under / common};
}

Fraction fraction(const Json& text) {
    const auto written = text.get<std::string>();
    const auto slash = written.find('/');
    const auto under = slash == std::string::npos ? 1 : std::stoll(written.substr(slash + 1));
    const auto over = std::stoll(written);
    if (under <= 0 || over < 0) throw std::invalid_argument("'" + written + "' is not a fraction");
    return reduced(over, under);
}

Port port(const Json& item) {
    Port made;
    made.name = item.at("name");
    made.rate = fraction(item.at("rate"));
    made.channels = item.at("channels");
    made.frames = item.at("frames");
    if (made.channels < 1 || made.frames < 1 || made.rate.over < 1) {
        throw std::invalid_argument("'" + made.name + "' has no frames");
    }
    if (item.contains("latency")) {
        const auto& late = item.at("latency");
        made.latency = ceiling(fraction(late.at("algorithmic_seconds")) * made.rate);
        made.host_latency = late.at("host_frames");
        made.framing = fraction(late.at("framing_seconds"));
    }
    return made;
}

Control control(const Json& item) {
    Control made{item.at("name"), item.at("channels"), {}, {}, {}};
    if (!item.at("default").is_null()) made.standard = item.at("default").get<std::vector<float>>();
    if (!item.at("min").is_null()) made.minimum = item.at("min").get<float>();
    if (!item.at("max").is_null()) made.maximum = item.at("max").get<float>();
    return made;
}

template <class T> T at(const std::string& bytes, std::size_t offset) {
    T value{};
    if (offset + sizeof value <= bytes.size()) std::memcpy(&value, bytes.data() + offset, sizeof value);
    return value;
}

// Where a part lies that the header speaks of, or nothing for one that does not lie within the file.
std::string part(const std::string& bytes, std::uint64_t start, std::uint64_t length) {
    if (start < kHeaderBytes || start > bytes.size() || bytes.size() - start < length) return {};
    return bytes.substr(start, length);
}

}  // namespace

Fraction operator*(Fraction a, Fraction b) {
    const auto left = reduced(a.over, b.under), right = reduced(b.over, a.under);
    return {left.over * right.over, left.under * right.under};
}

Fraction operator/(Fraction a, Fraction b) { return a * Fraction{b.under, b.over}; }

Fraction operator+(Fraction a, Fraction b) {
    return reduced(a.over * b.under + b.over * a.under, a.under * b.under);
}

std::int64_t ceiling(Fraction a) { return (a.over + a.under - 1) / a.under; }
std::int64_t floor(Fraction a) { return a.over / a.under; }

std::string contents(const fs::path& path, const std::string& hint) {
    std::ifstream file(path, std::ios::binary);
    std::string bytes{std::istreambuf_iterator<char>(file), {}};
    if (!file) throw Error(path.string() + ": cannot be read", hint);
    return bytes;
}

std::string sha256(const std::string& bytes) {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned length = 0;
    EVP_Digest(bytes.data(), bytes.size(), digest.data(), &length, EVP_sha256(), nullptr);
    std::string text;
    for (unsigned i = 0; i < length; ++i) {
        text += "0123456789abcdef"[digest[i] >> 4];
        text += "0123456789abcdef"[digest[i] & 15];
    }
    return text;
}

Error damaged(const fs::path& folder, const std::exception& error) {
    return {(folder / "manifest.json").string() + ": is damaged or none of ours (" + error.what() + ")", "export anew"};
}

Json read_manifest(const fs::path& folder) {
    const auto path = folder / "manifest.json";
    const auto text = contents(path, kWhole);
    Json manifest;
    try {
        manifest = Json::parse(text);
        if (!manifest.is_object() || manifest.value("format", "") != kFormat) {
            throw Error(path.string() + ": is not the manifest of an export", "name a folder that astrape export wrote");
        }
        if (manifest.at("version") != kVersion) {
            throw Error(path.string() + ": is of version " + manifest.at("version").dump() + ", and this reads version " +
                            std::to_string(kVersion), "export anew, or take the runner of that version");
        }
    } catch (const Error&) {
        throw;
    } catch (const std::exception& error) {
        throw damaged(folder, error);
    }
    return manifest;
}

Package package_of(const Json& manifest, const fs::path& folder) {
    try {
        if (manifest.at("batch") != 1 || manifest.at("inputs").size() != 1) {
            throw Error((folder / "manifest.json").string() + ": has " + manifest.at("batch").dump() + " rows and " +
                            std::to_string(manifest.at("inputs").size()) + " inputs, and this runs one of one",
                        "export with --batch 1 a recipe of one input");
        }
        Package made;
        made.folder = folder;
        made.name = manifest.at("recipe");
        made.licence = manifest.value("licence", "unknown");
        made.encoder = manifest.value("weights", Json::object()).value("speaker_encoder", "");
        made.input = port(manifest.at("inputs")[0]);
        for (const auto& item : manifest.at("outputs")) made.outputs.push_back(port(item));
        for (const auto& item : manifest.at("controls")) made.controls.push_back(control(item));
        return made;
    } catch (const Error&) {
        throw;
    } catch (const std::exception& error) {
        throw damaged(folder, error);
    }
}

std::map<std::string, std::string> checked_files(const Json& manifest, const fs::path& folder) {
    std::map<std::string, std::string> files;
    for (const auto& [file, facts] : manifest.at("files").items()) {
        auto bytes = contents(folder / file, kWhole);
        if (sha256(bytes) != facts.at("sha256").get<std::string>()) {
            throw Error((folder / file).string() + ": is not what was written, by its checksum", "copy it again or export anew");
        }
        files[file] = std::move(bytes);
    }
    return files;
}

void check_files(const Package& package) {
    const auto manifest = read_manifest(package.folder);
    try {
        checked_files(manifest, package.folder);
    } catch (const Error&) {
        throw;
    } catch (const std::exception& error) {
        throw damaged(package.folder, error);
    }
}

Package read_package(const fs::path& folder) { return package_of(read_manifest(folder), folder); }

Voice read_voice(const fs::path& file) {
    const std::string anew = "build the voicebank anew";
    std::error_code none;
    if (fs::file_size(file, none) > kLargestVoice && !none) {
        throw Error(file.string() + ": is larger than a voice ever is", anew);
    }
    const auto bytes = contents(file, "name a voice that astrape wrote");
    const auto values = part(bytes, at<std::uint64_t>(bytes, 16), kEmbeddingBytes);
    auto text = part(bytes, at<std::uint64_t>(bytes, 28), at<std::uint32_t>(bytes, 36));
    if (bytes.substr(0, 4) != "ASR1" || at<std::uint32_t>(bytes, 4) != 3 ||
        at<std::uint32_t>(bytes, 24) != kEmbeddingBytes || values.empty()) {
        throw Error(file.string() + ": is not a whole voice of version 3", anew);
    }
    // The checksum of embedding and metadata, the last field where there is one, was made with zeros in its own place.
    const auto seal = text.rfind(kSeal);
    if (seal != std::string::npos) {
        const auto digest = seal + std::strlen(kSeal);
        if (digest + kDigest > text.size()) throw Error(file.string() + ": is cut off", "copy it again, or " + anew);
        const auto found = text.substr(digest, kDigest);
        text.replace(digest, kDigest, std::string(kDigest, '0'));
        if (sha256(values + text) != found) {
            throw Error(file.string() + ": is not what was written, by its checksum", "copy it again, or " + anew);
        }
    }
    Voice made;
    made.embedding.resize(kEmbeddingBytes / sizeof(float));
    std::memcpy(made.embedding.data(), values.data(), kEmbeddingBytes);
    const auto said = Json::parse(text, nullptr, false);
    if (said.is_object()) {
        if (said.contains("embedding_model") && said["embedding_model"].is_string()) made.encoder = said["embedding_model"];
        if (said.contains("median_f0_hz") && said["median_f0_hz"].is_number()) made.median_f0 = said["median_f0_hz"];
    }
    return made;
}

}  // namespace astrape
