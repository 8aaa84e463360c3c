#!/usr/bin/env bash
# Run a command as N processes of one training run on this machine:
#   bash scripts/launch/local.sh 2 tfm train --config=quickstart --workdir=runs/two
# DRY=1 prints the commands. If a process fails, stop the others and exit with its status.
set -euo pipefail
count=${1:?usage: local.sh N COMMAND...}
shift
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export TFM_COORDINATOR=127.0.0.1:$port TFM_PROCESSES=$count
if [ -n "${DRY:-}" ]; then
  for ((i = 0; i < count; i++)); do
    printf 'TFM_COORDINATOR=%s TFM_PROCESSES=%s TFM_PROCESS=%s ' "$TFM_COORDINATOR" "$count" "$i"
    printf '%q ' "$@"; echo
  done
  exit
fi
processes=()
for ((i = 0; i < count; i++)); do
  TFM_PROCESS=$i "$@" &
  processes+=($!)
done
trap 'kill "${processes[@]}" 2>/dev/null || true' INT TERM
status=0
for _ in "${processes[@]}"; do
  code=0
  wait -n || code=$?
  if [ "$code" -ne 0 ] && [ "$status" -eq 0 ]; then
    status=$code
    # The others would wait for it: they get 30 seconds to name it and end.
    for ((i = 0; i < 30; i++)); do
      [ -z "$(jobs -rp)" ] && break
      sleep 1
    done
    kill -KILL "${processes[@]}" 2>/dev/null || true
  fi
done
exit "$status"
