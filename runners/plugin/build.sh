#!/usr/bin/env bash
# Build the plugin into the folder $1/bundles, as LV2, VST3 and CLAP, with one channel and with two, from what the
# Python $2 exports. With INSTALL=1 what is missing is installed (Debian, as root).
set -euo pipefail
build=$1 python=${2:-python3} source=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$source/../.." && pwd)
mkdir -p "$build"
build=$(cd "$build" && pwd)

# The runner's script brings compilers, libraries, and the headers of ONNX Runtime.
runner=$(dirname "$build")/runner
"$source/../cpp/build.sh" "$runner" "$python"
if [ "${INSTALL:-0}" = 1 ]; then apt-get install -y -qq dpf-source patchelf; fi

# The package that ships, once for each rate of a host. An export takes a minute or two, and is made anew where recipe,
# weights or code are newer: the code decides the latency too.
recipe=astrape-mini
for rate in ${RATES:-44100 48000 88200 96000}; do
    folder=$build/resources/packages/$recipe-$rate
    if [ ! -e "$folder/manifest.json" ] || [ -n "$(find "$root/astrape" \
        \( -name '*.py' -o -name "$recipe.*" \) -newer "$folder/manifest.json" -print -quit)" ]; then
        "$python" -m astrape export $recipe --rate "$rate" -o "$folder"
    fi
done
mkdir -p "$build/resources/voices" "$build/own"
cp -u "$root"/astrape/recipes/voices/*.astrape "$root/astrape/recipes/voices/LICENSE.txt" "$build/resources/voices/"
"$python" "$source/controls.py" "$build/resources/packages/$recipe-44100/manifest.json" "$build/controls.hpp"

# ONNX Runtime under a name of its own: a host may hold another version, and a name is loaded once.
library=$(readlink -f "$runner/libonnxruntime.so.1")
own=$build/own/libastrape-onnxruntime.so
if [ ! -e "$own" ] || [ "$library" -nt "$own" ]; then
    cp "$library" "$own"
    patchelf --set-soname "$(basename "$own")" "$own"
fi
# Its notices, of the Python package or of Debian.
for notice in "$(dirname "$(dirname "$library")")"/{LICENSE,ThirdPartyNotices.txt} /usr/share/doc/libonnxruntime-dev/copyright; do
    if [ -e "$notice" ]; then cp -u "$notice" "$build/resources/onnxruntime-$(basename "$notice")"; fi
done
include=$(sed -n 's/^ONNXRUNTIME_INCLUDE:PATH=//p' "$runner/CMakeCache.txt")
cmake -S "$source" -B "$build" -DONNXRUNTIME_INCLUDE="$include" -DONNXRUNTIME_LIBRARY="$own"
cmake --build "$build"

# Whole bundles. Copies within the build folder are hard links and take no room.
for folder in "$build"/bundles/lv2/*.lv2 "$build"/bundles/vst3/*.vst3/Contents/*-linux "$build"/bundles/clap/*.clap; do
    cp -lf "$own" "$folder/"
    to=$folder/resources
    case $folder in *-linux) to=$(dirname "$folder")/Resources ;; esac
    rm -rf "$to"
    cp -rl "$build/resources" "$to"
    cp -f "$root/LICENSE" "$to/LICENSE-astrape"
    cp -f /usr/share/dpf/LICENSE "$to/LICENSE-DPF" 2>/dev/null || true
done
for folder in "$build"/bundles/lv2/*.lv2; do
    name=$(basename "$folder" .lv2)
    (cd "$folder" && "$build/lv2-ttl-generator" "./$name.so")
    # Words of other vocabularies, which lv2_validate does not know.
    sed -i -e '/^ *mod:/d' -e '/NonAutomatable/d' -e 's/props#expensive> ,/props#expensive> ;/' "$folder/$name.ttl"
done
echo "$build/bundles: copy lv2/*, vst3/* or clap/*, as your host likes it, to ~/.lv2, ~/.vst3 or ~/.clap"
