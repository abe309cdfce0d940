#!/usr/bin/env bash
# Evaluate on several GPUs of one machine, or of several:
#
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [flags of test.py]
#
# NNODES, NODE_RANK, MASTER_ADDR and PORT are read from the environment; the
# same command runs on every machine, with its own NODE_RANK.
set -euo pipefail

if (($# < 3)); then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [flags of test.py]" >&2
    exit 2
fi
CONFIG=$1
CHECKPOINT=$2
GPUS=$3
TOOLS=$(dirname "${BASH_SOURCE[0]}")

PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" exec torchrun \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$TOOLS/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "${@:4}"
