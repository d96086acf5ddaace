#!/bin/bash
# One of the paper's networks (arXiv:2604.12841) from training to tables, on the GPUs of this node:
#
#     slurm/paper.sh MODEL [key=value of `qec train` ...] [-- key=value of `qec evaluate` ...]
#     slurm/paper.sh m1
#     slurm/paper.sh small shots=2000 -- distance=3 p=0.006 max_shots=1000    # a try on a CPU
#
# Everything goes to out/paper/MODEL.  Stopped, the same command goes on.

set -euo pipefail
model=$1
shift
train=()
while [[ $# -gt 0 && $1 != -- ]]; do train+=("$1"); shift; done
[[ $# -gt 0 ]] && shift
folder=out/paper/$model

gpus=$({ nvidia-smi -L 2>/dev/null || true; } | wc -l)
launch=(python -m qec.cli)
device=cpu
keys=("shards=$((gpus > 0 ? gpus : 1))" batch=$((gpus > 0 ? 1024 * gpus : 64)))
if [[ $gpus -gt 0 ]]; then
    launch=(torchrun "--nproc-per-node=$gpus" -m qec.cli)
    device=cuda
    keys+=(hardware=h100)
fi

# The paper's noise, and its number of shots: 6.7e9.
"${launch[@]}" train "model=$model" "out=$folder" noises=uniform orders=across with_cz=0 spread=0 \
    shots=6.7e9 "${keys[@]}" "${train[@]}"
qec evaluate "predecoder=$folder/$model.safetensors" "device=$device" "out=$folder/accuracy" \
    distance=5,9,13,17,21,31 p=0.006,0.003 noise=uniform basis=X "$@"
qec paper-factors "evaluation=$folder/accuracy"
qec benchmark "predecoder=$folder/$model.safetensors" distance=5,9 p=0.006 seconds=2 \
    "out=$folder/speed"
