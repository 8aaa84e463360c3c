#!/usr/bin/env bash
# Run a command on every host of a TPU pod slice; jax finds the hosts:
#   TPU=my-v5e-16 ZONE=us-west4-a bash scripts/launch/tpu_vm.sh tfm train --config=quickstart --workdir=/mnt/runs/1
# Expected on every host: this checkout in ~/tfm with its .venv (pip install -e . 'jax[tpu]'), and the workdir mounted
# (gcsfuse, Filestore). A template, not tested on a pod.
set -euo pipefail
: "${TPU:?set TPU to the name of the slice}" "${ZONE:?set ZONE to its zone}"
gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
  --command="cd ~/tfm && source .venv/bin/activate && $(printf '%q ' "$@")"
