#!/usr/bin/env bash
# Sourced by the other scripts: makes .venv (or TFM_VENV) with the package and the extras named in EXTRAS, once per
# pyproject.toml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
TFM_VENV=${TFM_VENV:-.venv}
# Else every process compiles all it imports, some ten seconds of jax and PyTorch: in tests, over and over.
unset PYTHONDONTWRITEBYTECODE

PYTHON=${PYTHON:-python3}
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "setup: $PYTHON is $("$PYTHON" --version 2>&1 || echo missing). Expected Python 3.11 or newer: PYTHON=/path/to/python3.12 $0" >&2
  exit 2
fi
if [ ! -x "$TFM_VENV/bin/python" ]; then
  echo "setup: making $TFM_VENV with $("$PYTHON" --version)"
  "$PYTHON" -m venv "$TFM_VENV" || {
    rm -rf "$TFM_VENV"
    echo "setup: 'python -m venv' failed. On Debian and Ubuntu: apt install python3-venv" >&2
    exit 2
  }
fi
stamp="$TFM_VENV/.installed-$(cat pyproject.toml <(echo "${EXTRAS:-}") | cksum | tr -d ' ')"
if [ ! -e "$stamp" ]; then
  echo "setup: installing tfm${EXTRAS:+[$EXTRAS]} into $TFM_VENV (a minute or two the first time)"
  # The pip that comes with older Pythons looks through the index for half a minute longer; a new one is 2 MB.
  "$TFM_VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --upgrade pip
  # Python compiles a module when it is first imported; compiling all of them takes as long as the rest.
  "$TFM_VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile -e ".${EXTRAS:+[$EXTRAS]}"
  touch "$stamp"
fi
