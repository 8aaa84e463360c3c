#!/usr/bin/env bash
# Lint, types and the tests, in .venv.   bash scripts/test.sh [--oracles | --all | --tpu] [pytest arguments]
# --oracles also installs PyTorch and transformers (hundreds of MB) and runs the parity tests against them.
# --all also runs the large group, slow cases that add little to others, as every night.
# --tpu only compiles kernels for TPUs, which needs no TPU but libtpu (hundreds of MB, in .venv-tpu).
EXTRAS=test
if [ "${1:-}" = --tpu ]; then
  shift
  # Beside libtpu jax looks for a TPU whenever it starts: it has a place of its own.
  EXTRAS=tpu TFM_VENV=.venv-tpu
  . "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
  # What is asked is what a real run would compile.
  JAX_DISABLE_MOST_OPTIMIZATIONS=0 exec "$TFM_VENV/bin/python" -m pytest tests/tpu "$@"
fi
if [ "${1:-}" = --oracles ] || [ "${1:-}" = --all ]; then
  EXTRAS=test,oracles
  if [ "$1" = --all ]; then export TFM_ALL=1; fi
  shift
fi
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

bin=.venv/bin
$bin/ruff check .
$bin/ruff format --check .
$bin/mypy &  # beside the tests, which it would keep waiting on one core
types=$!
if [ "$EXTRAS" = test ]; then
  echo 'test: the oracle group (parity with PyTorch and transformers) is left out: it needs hundreds of MB more.'
  echo '      bash scripts/test.sh --oracles installs them and runs it.'
fi
status=0
$bin/python -m pytest -n "${TFM_TEST_WORKERS:-2}" --dist worksteal "$@" || status=$?
# Once more where it is wrong, as tests stand between it and the reader.
wait "$types" || { $bin/mypy || true; status=1; }
exit "$status"
