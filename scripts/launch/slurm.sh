#!/usr/bin/env bash
# sbatch scripts/launch/slurm.sh --config=pretrain:llama3-8b --workdir=/shared/runs/1 --config.mesh.fsdp=8
# One task per node; jax finds its peers through SLURM. Workdir and token cache must be on a shared file system.
# A template, not tested on a cluster: set partition, account and GPUs.
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
# 75 says: stopped by SIGTERM, saved, the same command goes on. So the job is queued again.
srun --kill-on-bad-exit=1 .venv/bin/tfm train "$@" || status=$?
if [ "${status:-0}" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "${status:-0}"
