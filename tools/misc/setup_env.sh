#!/usr/bin/env bash
# Makes a virtual environment with the stack that mmdiffkd is tested on.
#
#   PYTHON=python3 tools/misc/setup_env.sh [.venv [classification]]
#
# With `classification` it leaves out what only detection, segmentation and
# the tests need: mmdet, mmseg, mmcv's compiled operators, the test tools. A
# second call only does what is missing. pip's own words go to
# <folder>/install.log.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

VENV=${1:-.venv}
PART=${2:-all}
BASE_PYTHON=${PYTHON:-python3}
PYTHON=$VENV/bin/python
LOG=$VENV/install.log
CONSTRAINTS=requirements/constraints.txt
MMCV=$(sed -n 's/^onedl-mmcv==//p' "$CONSTRAINTS")
# Sources and operators of mmcv, a folder a build: see compile_operators.
BUILDS=${XDG_CACHE_HOME:-$HOME/.cache}/mmdiffkd

check_machine() {
    local missing=()
    if ! command -v "$BASE_PYTHON" >/dev/null; then
        missing+=("$BASE_PYTHON: install Python 3.10, 3.11 or 3.12, or name \
one: make PYTHON=python3.11")
    elif ! "$BASE_PYTHON" -c 'import sys
sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'; then
        missing+=("Python 3.10, 3.11 or 3.12: $BASE_PYTHON is \
$("$BASE_PYTHON" -V 2>&1); name another: make PYTHON=python3.11")
    else
        "$BASE_PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
            missing+=("the venv module of $BASE_PYTHON: on Debian and Ubuntu \
it is the package python3-venv")
        [[ $PART == classification ]] || "$BASE_PYTHON" -c '
import os, sys, sysconfig
folder = sysconfig.get_path("include")
sys.exit(not os.path.isfile(os.path.join(folder, "Python.h")))' ||
            missing+=("the headers of $BASE_PYTHON, which mmcv is compiled \
with: on Debian and Ubuntu they are the package python3-dev")
    fi
    [[ $PART == classification ]] || command -v "${CXX:-c++}" >/dev/null ||
        missing+=("a C++ compiler (${CXX:-c++}), which mmcv is compiled \
with: on Debian and Ubuntu it is the package build-essential")
    if ((${#missing[@]})); then
        echo 'Missing on this machine:'
        printf '  - %s\n' "${missing[@]}"
        exit 1
    fi
}

# What ninja last said of the files to compile, and the time that is left if
# the others take as long: prints nothing before the first one.
progress() {
    local seconds=$1 count
    count=$(tail -n +"$2" "$LOG" | { grep -oE '^ *\[[0-9]+/[0-9]+\]' || true; } |
        tail -n 1)
    [[ $count =~ ([0-9]+)/([0-9]+) ]] || return 0
    local done=${BASH_REMATCH[1]} all=${BASH_REMATCH[2]}
    printf '\n    %d of %d files, about %d min left ' "$done" "$all" \
        $(((seconds * (all - done) / done + 59) / 60))
}

# step TITLE TYPICAL_TIME COMMAND...: one line on screen, the rest in the log.
step() {
    local title=$1 typical=$2 start=$SECONDS status
    shift 2
    printf '%-46s %-24s' "$title" "(about $typical)"
    echo "### $title: $*" >>"$LOG"
    local line
    line=$(wc -l <"$LOG")
    # The sleep that outlives the step must not hold a pipe open.
    (while sleep 60 >/dev/null 2>&1; do
        progress $((SECONDS - start)) "$line"
    done) &
    local reporter=$!
    # Not `|| status=$?`, with which the first failure would not end it.
    set +e
    (set -e; "$@") >>"$LOG" 2>&1
    status=$?
    set -e
    kill "$reporter" 2>/dev/null
    wait "$reporter" 2>/dev/null || true
    if ((status)); then
        printf 'failed\n\nThe end of %s:\n' "$LOG"
        tail -n 30 "$LOG"
        exit 1
    fi
    printf 'done in %d s\n' $((SECONDS - start))
}

pip() {
    "$PYTHON" -m pip --disable-pip-version-check install \
        --constraint "$CONSTRAINTS" "$@"
}

# OpenCV comes twice, and the one with windows needs libGL.
install_opencv() {
    pip opencv-python opencv-python-headless
    "$PYTHON" -c 'import cv2' ||
        pip --force-reinstall --no-deps opencv-python-headless
    "$PYTHON" -c 'import cv2'
}

has_mmcv() {
    "$PYTHON" -c "import mmcv; assert mmcv.__version__ == '$MMCV'"
}

has_operators() {
    has_mmcv && "$PYTHON" -c 'import mmcv.ops'
}

# torch is hidden from an isolated build, and so mmcv leaves its operators
# out. pip's cache would give either build for the other: neither goes there.
install_mmcv() {
    has_mmcv || pip --no-cache-dir "onedl-mmcv==$MMCV"
}

# All that decides what is compiled: a folder of this name holds one build.
name_of_build() {
    "$PYTHON" -c "
import platform, sys, torch
devices = range(torch.cuda.device_count())
devices = {torch.cuda.get_device_capability(device) for device in devices}
devices = ['sm%d%d' % device for device in sorted(devices)] or ['cpu']
python = sys.implementation.cache_tag
name = ['mmcv-$MMCV', 'torch-' + torch.__version__, python, *devices]
print('_'.join([*name, platform.machine()]))"
}

# The unpacked source is kept, so that ninja goes on where an interrupted
# build was. The wheel is kept, so that another environment compiles nothing.
compile_operators() {
    if has_operators; then return; fi
    local build wheel
    build=$BUILDS/$(name_of_build)
    wheel=$build/wheel
    mkdir -p "$build"
    if command -v flock >/dev/null; then
        exec 9>"$build/lock"
        flock 9
    fi
    if ! install_wheel "$wheel"; then
        rm -rf "$wheel"
        if [[ ! -d $build/source ]]; then
            rm -rf "$build/unpacked"
            mkdir "$build/unpacked"
            "$PYTHON" -m pip --disable-pip-version-check download \
                --no-deps --no-binary :all: --no-build-isolation \
                --dest "$build" "onedl-mmcv==$MMCV"
            tar -xzf "$build"/*.tar.gz -C "$build/unpacked" \
                --strip-components 1
            mv "$build/unpacked" "$build/source"
        fi
        # -v, since pip keeps ninja's words to itself otherwise.
        "$PYTHON" -m pip --disable-pip-version-check wheel -v --no-deps \
            --no-build-isolation --wheel-dir "$wheel" "$build/source"
        install_wheel "$wheel"
        # Only an interrupted build needs its 350 MB of objects.
        rm -rf "$build/source/build"
    fi
}

# One that does not load, from a machine with other libraries, is no wheel.
install_wheel() {
    [[ -d $1 ]] && pip --no-deps --force-reinstall "$1"/*.whl && has_operators
}

check_machine
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
if [[ ! -x $PYTHON ]]; then
    "$BASE_PYTHON" -m venv "$VENV"
fi
date >>"$LOG"
echo "Setting up $VENV ($("$PYTHON" -V), log in $LOG); times are those of 2"
echo 'CPU cores, without what has to be downloaded'
step 'pip and build tools' '5 s' \
    pip --upgrade pip setuptools wheel ninja psutil packaging
step 'torch and torchvision' '45 s' pip torch torchvision
step 'OpenCV' '5 s' install_opencv
step 'mmcv, without its compiled operators' '10 s' install_mmcv
step 'mmpretrain' '10 s' pip onedl-mmpretrain
step 'mmdiffkd' '10 s' pip --no-build-isolation --editable .
if [[ $PART == classification ]]; then
    imports='cv2, mmcv, mmpretrain.models, mmdiffkd'
else
    # One compiler a core: ninja would start two more, which was slower.
    export MAX_JOBS=${MAX_JOBS:-$(nproc)}
    if "$PYTHON" -c 'import sys, torch
sys.exit(not torch.cuda.is_available())' && ! command -v nvcc >/dev/null; then
        echo 'There is a GPU, but no nvcc: mmcv gets its operators for the'
        echo '  CPU. Classification does not use them. For detection, install'
        echo '  the CUDA toolkit and call make again.'
        export CUDA_VISIBLE_DEVICES=
    fi
    step 'the operators of mmcv, compiled' '10 min, the first time' \
        compile_operators
    step 'mmdet, mmseg, the tools of the tests and docs' '60 s' \
        pip -r requirements/openmmlab.txt -r requirements/tests.txt \
        -r requirements/docs.txt
    imports='cv2, mmcv.ops, mmdet.models, mmpretrain.models, mmseg.models, '
    imports+='mmdiffkd'
fi
step 'looking whether all of it can be imported' '10 s' \
    "$PYTHON" -c "import $imports"
echo "Set up in $((SECONDS / 60)) min $((SECONDS % 60)) s"
