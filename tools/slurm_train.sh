#!/usr/bin/env bash
# Train on a cluster that Slurm manages:
#
#   GPUS=8 tools/slurm_train.sh PARTITION JOB CONFIG WORK_DIR [flags of train.py]
#
# GPUS (8), GPUS_PER_NODE (8, or GPUS where that is less), CPUS_PER_TASK (5)
# and SRUN_ARGS are read from the environment.
set -euo pipefail

if (($# < 4)); then
    echo "usage: $0 PARTITION JOB CONFIG WORK_DIR [flags of train.py]" >&2
    exit 2
fi
PARTITION=$1
JOB=$2
CONFIG=$3
WORK_DIR=$4
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
TOOLS=$(dirname "${BASH_SOURCE[0]}")

# SRUN_ARGS is a list of words.
# shellcheck disable=SC2086
PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" exec srun \
    --partition="$PARTITION" \
    --job-name="$JOB" \
    --gres="gpu:$GPUS_PER_NODE" \
    --ntasks="$GPUS" \
    --ntasks-per-node="$GPUS_PER_NODE" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    python -u "$TOOLS/train.py" "$CONFIG" --work-dir "$WORK_DIR" \
    --launcher slurm "${@:5}"
