#!/usr/bin/env bash
# The published tables on one GPU, in the order of their worth, in at most so many minutes:
#
#     benchmarks/gpu_reproduce.sh [MINUTES] [OUT]        (defaults: 240 runs/reproduce)
#
# Run it again to go on: finished trainings and cells are left out, and a training that was cut
# short continues from its checkpoint. `STEPS=smoke` tries every step in minutes on a CPU.
set -euo pipefail
cd "$(dirname "$0")/.."
minutes="${1:-240}"
out="${2:-runs/reproduce}"
weights="$out/dense"
python="${PYTHON:-python}"
device="${DEVICE:-cuda}"
end=$((SECONDS + minutes * 60))

left() { echo $(((end - SECONDS) / 60)); }

# Nothing begins when the time is over; a step that is cut short goes on in the next run.
step() {
  local seconds=$((end - SECONDS))
  if ((seconds <= 0)); then
    echo "time is over before: $*" >&2
    exit 0
  fi
  timeout --signal=INT "$seconds" "$python" -m benchmarks "$@" || {
    local code=$?
    ((code == 124)) && { echo "time is over in: $*" >&2; exit 0; }
    echo "failed ($code): $*" >&2
  }
}

if [[ "${STEPS:-}" == smoke ]]; then
  for table in constrained-rl amc rl-pruner; do
    step reproduce "$table" --smoke --out "$out/smoke"
  done
  exit 0
fi

train() {
  step train --task "$1" --device "$device" --out "$weights/$1-seed0.safetensors" \
    --checkpoint-every 5 --resume
}
table() {
  step reproduce "$@" --device "$device" --weights "$weights" --out "$out" --minutes "$(left)"
}

# 1. Constrained RL: VGG-16 at 7 % of the parameters, ResNet-18 at 24.9 %.
train cifar10-vgg16
train cifar10-resnet18
table constrained-rl --tasks cifar10-vgg16,cifar10-resnet18 --methods rl-pruner,ppo-lagrangian --seeds 1
# 2. ResNet-56 at half the MACs (published weights).
table amc --methods rl-pruner --seeds 1
# 3. RL-Pruner's table, its method, one seed.
for task in cifar100-vgg19 cifar100-googlenet cifar100-resnet56; do
  train "$task"
  table rl-pruner --tasks "$task" --methods rl-pruner --seeds 1
done
# 4. The same with three seeds, and what any search must beat.
table constrained-rl --tasks cifar10-vgg16,cifar10-resnet18
table amc
table rl-pruner --tasks cifar100-vgg19,cifar100-googlenet,cifar100-resnet56
# 5. The remaining networks of the tables.
for task in cifar10-vgg11 cifar10-vgg19 cifar100-mobilenetv3 cifar100-densenet121; do
  train "$task"
done
table constrained-rl
table rl-pruner
