#!/usr/bin/env bash
# Sourced by the other scripts: make .venv (or TFM_VENV) with the package and the extras in EXTRAS. It installs again
# only if pyproject.toml or EXTRAS change.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
TFM_VENV=${TFM_VENV:-.venv}
# With this variable every process would compile jax and PyTorch again, about ten seconds each time.
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
  # pip of older Pythons searches the index for half a minute longer.
  "$TFM_VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --upgrade pip
  # Python compiles modules on first import; compiling all of them would double the time.
  "$TFM_VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile -e ".${EXTRAS:+[$EXTRAS]}"
  touch "$stamp"
fi
