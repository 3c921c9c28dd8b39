// What reading packages and voices shares: whole files, checksums, exact numbers. Not for others to include.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include <nlohmann/json.hpp>

#include "astrape.hpp"

namespace astrape {

using Json = nlohmann::json;

Fraction operator*(Fraction a, Fraction b);
Fraction operator/(Fraction a, Fraction b);
Fraction operator+(Fraction a, Fraction b);
std::int64_t ceiling(Fraction a);  // of numbers that are not negative
std::int64_t floor(Fraction a);

// All of a file. Throws Error with the hint.
std::string contents(const std::filesystem::path& path, const std::string& hint);
std::string sha256(const std::string& bytes);

// A manifest that was checked for its form and version.
Json read_manifest(const std::filesystem::path& folder);
Package package_of(const Json& manifest, const std::filesystem::path& folder);

// All files that a manifest names, held against their checksums, by name.
std::map<std::string, std::string> checked_files(const Json& manifest, const std::filesystem::path& folder);

// Of what is wrong inside of a manifest, for an exception of JSON, of numbers or of ONNX Runtime.
Error damaged(const std::filesystem::path& folder, const std::exception& error);

}  // namespace astrape
