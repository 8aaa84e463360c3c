#!/usr/bin/env bash
# Run lint, types and tests in .venv.   bash scripts/test.sh [--oracles | --all | --tpu] [pytest arguments]
# --oracles also installs PyTorch and transformers (hundreds of MB) and compares with them.
# --all also runs the large group, as every night.
# --tpu only compiles kernels for TPUs, with libtpu (hundreds of MB, in .venv-tpu) and without a TPU.
EXTRAS=test
if [ "${1:-}" = --tpu ]; then
  shift
  # With libtpu, jax searches for a TPU at every start; hence a separate environment.
  EXTRAS=tpu TFM_VENV=.venv-tpu
  . "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
  # Compile what a real run would compile.
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
$bin/mypy &  # runs during the tests
types=$!
if [ "$EXTRAS" = test ]; then
  echo 'test: skipping the oracle group (parity with PyTorch and transformers), which needs hundreds of MB more.'
  echo '      bash scripts/test.sh --oracles installs them and runs it.'
fi
status=0
$bin/python -m pytest -n "${TFM_TEST_WORKERS:-2}" --dist worksteal "$@" || status=$?
# After an error, print it again below the output of the tests.
wait "$types" || { $bin/mypy || true; status=1; }
exit "$status"
