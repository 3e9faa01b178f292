#!/usr/bin/env bash
# The speed table on a GPU, with one command. On a machine without one, try it with
#   benchmarks/gpu_speed.sh --smoke --device cpu
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python}" -m benchmarks speed --device cuda --out benchmarks/results/speed-gpu.jsonl "$@"
