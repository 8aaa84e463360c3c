#!/usr/bin/env bash
# Submit a training run, one task per node:
#   bash scripts/launch/slurm.sh --config=pretrain:llama3-8b --workdir=/shared/runs/1 --config.mesh.fsdp=8
# DRY=1 prints the commands. Options of sbatch, such as the partition, go into SBATCH_OPTIONS. jax finds the other
# tasks through SLURM. Workdir and cache must be on a shared file system. Not tested on a cluster.
#SBATCH --job-name=tfm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
set -euo pipefail
export TFM_CACHE=${TFM_CACHE:-$PWD/.cache/tfm}
submit=(sbatch ${SBATCH_OPTIONS:-} scripts/launch/slurm.sh "$@")
run=(srun --kill-on-bad-exit=1 .venv/bin/tfm train "$@")
if [ -n "${DRY:-}" ]; then
  printf '%q ' "${submit[@]}"; echo
  printf '%q ' "${run[@]}"; echo
  exit
fi
if [ -z "${SLURM_JOB_ID:-}" ]; then
  exec "${submit[@]}"
fi
status=0
"${run[@]}" || status=$?
# 75: saved after SIGTERM. 70: a process hung or was lost. The same command continues.
if [ "$status" -eq 75 ] || [ "$status" -eq 70 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
