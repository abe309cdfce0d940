#!/usr/bin/env bash
# Reports what a GPU does, on a machine without network or OpenMMLab.
#
#   tools/misc/gpu_report.sh --prepare WHEELS [CHECKOUT]
#   tools/misc/gpu_report.sh WHEELS OUT [--device cpu --small]
#
# The first call needs a network. It fills the folder WHEELS, for Python 3.12
# and this kind of processor, with what the second installs into a folder of
# its own. CHECKOUT is one of github.com/hunto/image_classification_sota: its
# DiffKD module goes along and is measured beside ours. Take WHEELS and this
# repository to the GPU. The page and its JSON go to OUT, within 10 minutes.
set -euo pipefail
shopt -s nullglob

PYTHON=${PYTHON:-python3}
CONSTRAINTS=requirements/constraints.txt
RELEASED=lib/models/losses/diffkd
MIB=50
# Without compiled operators, where no torch is seen: this is mmcv-lite.
SOURCES=(onedl-mmcv onedl-mmengine onedl-mmpretrain)
# What these and mmdiffkd import, but for what is large.
WHEELS=(addict annotated-types einops importlib-metadata markdown
    markdown-it-py mat4py mdurl model-index modelindex ordered-set packaging
    platformdirs pydantic pydantic-core pygments pyyaml rich safetensors
    tabulate termcolor typing-inspection yapf zipp)
# What is large: the machine with the GPU has it. Import names.
PRESENT=(torch torchvision numpy cv2 matplotlib PIL pytest)

prepare() {
    local folder=$1 checkout=${2:-} size
    mkdir -p "$folder"
    # pip's cache may have an mmcv with operators.
    (cd "$root" && "$PYTHON" -m pip wheel --quiet --no-cache-dir --no-deps \
        --constraint "$CONSTRAINTS" --wheel-dir "$folder" "${SOURCES[@]}")
    (cd "$root" && "$PYTHON" -m pip download --quiet --no-deps \
        --python-version 3.12 --only-binary :all: \
        --constraint "$CONSTRAINTS" --dest "$folder" "${WHEELS[@]}")
    if [[ -n $checkout ]]; then
        mkdir -p "$folder/$RELEASED"
        cp "$checkout/$RELEASED"/*.py "$folder/$RELEASED"
    fi
    size=$(du --summarize --apparent-size --block-size 1M "$folder" | cut -f 1)
    echo "$folder: $size MiB"
    if ((size >= MIB)); then
        echo "That is not below $MIB MiB. Empty $folder and call again."
        exit 1
    fi
}

report() {
    local folder=$1 out=$2 site name missing=() reference=()
    shift 2
    for name in "${PRESENT[@]}"; do
        "$PYTHON" -c "import importlib.util, sys
sys.exit(importlib.util.find_spec('$name') is None)" || missing+=("$name")
    done
    if ((${#missing[@]})); then
        echo "$PYTHON has no ${missing[*]}. These are too large to be taken \
along: install them, or name another: PYTHON=python3.12"
        exit 1
    fi
    site=$(mktemp -d)
    trap "rm -rf '$site'" EXIT
    "$PYTHON" -m pip install --quiet --no-index --no-deps --target "$site" \
        "$folder"/*.whl
    [[ ! -d $folder/$RELEASED ]] || reference=(--reference "$folder")
    PYTHONPATH=$site:$root "$PYTHON" \
        "$root/tools/analysis_tools/gpu_report.py" \
        --out "$out" "${reference[@]}" "$@"
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [[ ${1:-} == --prepare && $# -ge 2 ]]; then
    shift
    prepare "$(realpath -m "$1")" "${@:2}"
elif (($# >= 2)); then
    report "$@"
else
    sed -n 's/^#   /  /p' "${BASH_SOURCE[0]}"
    exit 1
fi
