#!/usr/bin/env bash
# Lint, types and every test, in .venv.   bash scripts/test.sh [--oracles] [pytest arguments]
# --oracles also installs PyTorch and transformers (hundreds of MB) and runs the parity tests against them.
EXTRAS=test
if [ "${1:-}" = --oracles ]; then
  EXTRAS=test,oracles
  export TFM_ORACLES=1
  shift
fi
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

bin=.venv/bin
$bin/ruff check .
$bin/ruff format --check .
$bin/mypy
if [ "$EXTRAS" = test ]; then
  echo 'test: the oracle group (parity with PyTorch and transformers) is left out: it needs hundreds of MB more.'
  echo '      bash scripts/test.sh --oracles installs them and runs it.'
fi
exec $bin/python -m pytest -n "${TFM_TEST_WORKERS:-2}" --dist worksteal "$@"
