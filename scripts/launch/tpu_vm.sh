#!/usr/bin/env bash
# Run a command on every host of a TPU slice; jax finds the hosts:
#   TPU=my-v5e-16 ZONE=us-west4-a bash scripts/launch/tpu_vm.sh tfm train --config=quickstart --workdir=/mnt/runs/1
# DRY=1 prints the command. Every host needs this checkout in ~/tfm with its .venv (pip install -e . 'jax[tpu]'), and
# the mounted workdir (gcsfuse, Filestore). Not tested on a slice.
set -euo pipefail
: "${1:?usage: TPU=... ZONE=... tpu_vm.sh COMMAND...}"
: "${TPU:?set TPU to the name of the slice}" "${ZONE:?set ZONE to its zone}"
run=(gcloud compute tpus tpu-vm ssh "$TPU" "--zone=$ZONE" --worker=all
  "--command=cd ~/tfm && source .venv/bin/activate && $(printf '%q ' "$@")")
if [ -n "${DRY:-}" ]; then
  printf '%q ' "${run[@]}"; echo
  exit
fi
exec "${run[@]}"
