#!/usr/bin/env bash
# Build astrape-run into the folder $1, with ONNX Runtime of Debian where it has it, else with the headers of Debian 13
# and the library that the Python $2 has as `onnxruntime`. With INSTALL=1 what is missing is installed (Debian, as root).
# ENGINES="onnx aoti" builds for packages of AOTInductor too, with libtorch of that Python; ENGINES=aoti for them alone.
set -euo pipefail
build=$1 python=${2:-python3} source=$(cd "$(dirname "$0")" && pwd)
engines=" ${ENGINES:-onnx} "
mkdir -p "$build"
build=$(cd "$build" && pwd)

if [ "${INSTALL:-0}" = 1 ]; then
    apt-get update -qq
    apt-get install -y -qq cmake g++ pkg-config nlohmann-json3-dev libsndfile1-dev libssl-dev
    if [[ $engines != *" onnx "* ]]; then
        :
    elif apt-cache show libonnxruntime-dev >/dev/null 2>&1; then
        apt-get install -y -qq libonnxruntime-dev
    elif [ ! -e "$build/headers" ]; then
        apt=$build/apt
        mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main" \
            >"$apt/sources.list"
        options=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o "Dir::Etc::sourceparts=-"
            -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o "APT::Sandbox::User=root")
        apt-get "${options[@]}" update -qq
        (cd "$apt" && apt-get "${options[@]}" download -qq libonnxruntime-dev)
        dpkg-deb -x "$apt"/libonnxruntime-dev_*.deb "$apt/x"
        mv "$apt/x/usr/include/onnxruntime" "$build/headers"
        rm -rf "$apt"
    fi
fi

where=(-DASTRAPE_ONNX=OFF -DASTRAPE_TORCH=OFF)
if [[ $engines == *" onnx "* ]]; then
    where[0]=-DASTRAPE_ONNX=ON
    if [ -e "$build/headers" ]; then
        library=$("$python" -c 'import glob, importlib.util as u
print(glob.glob(u.find_spec("onnxruntime").submodule_search_locations[0] + "/capi/libonnxruntime.so*")[0])')
        where+=(-DONNXRUNTIME_INCLUDE="$build/headers" -DONNXRUNTIME_LIBRARY="$library")
    fi
fi
if [[ $engines == *" aoti "* ]]; then
    # Not `import torch`, which takes seconds.
    torch=$("$python" -c 'import importlib.util as u
print(u.find_spec("torch").submodule_search_locations[0] + "/share/cmake")')
    where[1]=-DASTRAPE_TORCH=ON
    where+=(-DCMAKE_PREFIX_PATH="$torch")
fi
cmake -S "$source" -B "$build" "${where[@]}"
cmake --build "$build"
