#!/usr/bin/env bash
# Install tfm, train a small language model of Python source in minutes, compare it with gzip and xz on held-out
# source, and sample from it. Needs Python 3.11 or newer.
#   bash scripts/quickstart.sh [flags of `tfm train`, such as --config.model..relative=alibi]
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

workdir=${WORKDIR:-runs/quickstart}
.venv/bin/tfm train --config=configs/quickstart.py --workdir="$workdir" "$@"
.venv/bin/python scripts/compare_compressors.py --workdir="$workdir"
echo
.venv/bin/tfm generate --checkpoint="$workdir" --prompt=$'\n    def' --max_new_tokens=128 --temperature=0.7
