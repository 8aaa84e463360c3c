#!/usr/bin/env bash
# From a clone to a trained language model in minutes, on any machine with Python 3.11: it learns to write Python from
# the interpreter's own standard library, and is compared with gzip and xz on source it has not seen.
#   bash scripts/quickstart.sh [flags of `tfm train`, such as --config.model..relative=alibi]
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

workdir=${WORKDIR:-runs/quickstart}
.venv/bin/tfm train --config=configs/quickstart.py --workdir="$workdir" "$@"
.venv/bin/python scripts/compare_compressors.py --workdir="$workdir"
echo
.venv/bin/tfm generate --checkpoint="$workdir" --prompt=$'\n    def' --max_new_tokens=128 --temperature=0.7
