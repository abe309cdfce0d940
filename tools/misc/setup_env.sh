#!/usr/bin/env bash
# Makes a virtual environment with the stack that mmdiffkd is tested on.
#
#   PYTHON=python3 tools/misc/setup_env.sh [.venv]
#
# A second call only does what is missing. pip's own words go to
# <folder>/install.log.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

VENV=${1:-.venv}
BASE_PYTHON=${PYTHON:-python3}
PYTHON=$VENV/bin/python
LOG=$VENV/install.log
CONSTRAINTS=requirements/constraints.txt

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
        "$BASE_PYTHON" -c 'import os, sys, sysconfig
folder = sysconfig.get_path("include")
sys.exit(not os.path.isfile(os.path.join(folder, "Python.h")))' ||
            missing+=("the headers of $BASE_PYTHON, which mmcv is compiled \
with: on Debian and Ubuntu they are the package python3-dev")
    fi
    command -v "${CXX:-c++}" >/dev/null ||
        missing+=("a C++ compiler (${CXX:-c++}), which mmcv is compiled \
with: on Debian and Ubuntu it is the package build-essential")
    if ((${#missing[@]})); then
        echo 'Missing on this machine:'
        printf '  - %s\n' "${missing[@]}"
        exit 1
    fi
}

# step TITLE TYPICAL_TIME COMMAND...: one line on screen, the rest in the log.
step() {
    local title=$1 typical=$2 start=$SECONDS status=0
    shift 2
    printf '%-58s %s ' "$title" "($typical)"
    echo "### $title: $*" >>"$LOG"
    # The sleep that outlives the step must not hold a pipe open.
    (while sleep 15 >/dev/null 2>&1; do printf '.'; done) &
    local dots=$!
    "$@" >>"$LOG" 2>&1 || status=$?
    kill "$dots" 2>/dev/null
    wait "$dots" 2>/dev/null || true
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

has_operators() {
    "$PYTHON" -c 'import mmcv.ops'
}

# With build isolation mmcv's operators would be left out silently. And pip
# caches the built wheel under the name of the source, whatever torch it was
# built against: one that does not load is built again.
install_mmcv() {
    if has_operators; then return; fi
    pip --no-build-isolation onedl-mmcv
    has_operators ||
        pip --no-build-isolation --no-cache-dir --force-reinstall --no-deps \
            onedl-mmcv
    has_operators
}

check_machine
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
if [[ ! -x $PYTHON ]]; then
    "$BASE_PYTHON" -m venv "$VENV"
fi
date >>"$LOG"
echo "Setting up $VENV ($("$PYTHON" -V), log in $LOG)"
step 'pip and build tools' '10 s' \
    pip --upgrade pip setuptools wheel ninja psutil packaging
step 'torch and torchvision' '1 to 2 minutes' pip torch torchvision
step 'OpenCV' '10 s' install_opencv

export MMCV_WITH_OPS=1
# One compiler a core: ninja would start two more, which was slower.
export MAX_JOBS=${MAX_JOBS:-$(nproc)}
if "$PYTHON" -c 'import sys, torch
sys.exit(not torch.cuda.is_available())' && ! command -v nvcc >/dev/null; then
    echo 'There is a GPU, but no nvcc: mmcv gets its operators for the CPU.'
    echo '  Classification does not use them. For detection, install the CUDA'
    echo '  toolkit and call make again.'
    export CUDA_VISIBLE_DEVICES=
fi
step 'mmcv, compiled from source' '6 to 10 minutes on 2 cores' install_mmcv
step 'the other OpenMMLab packages, and the tools of the tests' '2 minutes' \
    pip -r requirements/openmmlab.txt -r requirements/tests.txt
step 'mmdiffkd' '10 s' pip --no-build-isolation --editable .
step 'looking whether all of it can be imported' '10 s' \
    "$PYTHON" -c 'import cv2, mmcv.ops, mmdet, mmpretrain, mmseg, mmdiffkd'
