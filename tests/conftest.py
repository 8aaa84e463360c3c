"""Setup of all tests: eight simulated devices, strict ranks, and a cache of compiled programs."""

from collections.abc import Iterator
import gc
import getpass
import importlib.metadata
import importlib.util
import os
import pathlib
import sys
import tempfile

# jax reads these when it is first imported.
_FLAGS = ['--xla_force_host_platform_device_count=8']
if importlib.metadata.version('jaxlib').startswith('0.10.'):
  # Compiles in half the time, and with one module a program in a fifth less; XLA ends the process
  # over a flag that it does not know.
  _FLAGS += ['--xla_cpu_use_fusion_emitters=false', '--xla_cpu_parallel_codegen_split_count=1']
_GIVEN = os.environ.get('XLA_FLAGS', '')
os.environ['XLA_FLAGS'] = ' '.join(
  [_GIVEN, *(f for f in _FLAGS if f.split('=')[0] not in _GIVEN)]
).strip()
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_NUMPY_RANK_PROMOTION'] = 'raise'
# Compiling, not running, is what tests wait for. A test that needs real optimisations runs a
# subprocess without it.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
_CACHE = pathlib.Path(tempfile.gettempdir()) / f'tfm-test-cache-{getpass.getuser()}'
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', os.environ.get('TFM_TEST_CACHE', str(_CACHE)))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '1.0')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '0')
os.environ['TOKENIZERS_PARALLELISM'] = 'false'

import pytest  # noqa: E402

from tests import groups  # noqa: E402
from tests.ids import case_id  # noqa: E402

_ORACLES = ('torch', 'transformers')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  if not groups.ALL:
    left_out = pytest.mark.skip(reason='the large group: bash scripts/test.sh --all runs it too')
    for item in items:
      if groups.is_large(item):
        item.add_marker(left_out)
  missing = [name for name in _ORACLES if importlib.util.find_spec(name) is None]
  if not missing:
    return
  names = ' and '.join(missing)
  reason = f'{names} not installed: bash scripts/test.sh --oracles installs them'
  for item in items:
    if item.get_closest_marker('oracle'):
      item.add_marker(pytest.mark.skip(reason=reason))


def pytest_make_parametrize_id(val: object, argname: str) -> str:
  return case_id(argname, val)


def pytest_collection_finish() -> None:
  # Tracing makes many objects and leaves few behind: looking for those took a twentieth of a
  # contract's CPU time.
  gc.freeze()
  gc.set_threshold(50_000)


@pytest.fixture(scope='module', autouse=True)
def _free_programs() -> Iterator[None]:
  """Free the compiled programs after each test module; the cache on disk keeps them."""
  yield
  if 'jax' in sys.modules:
    sys.modules['jax'].clear_caches()
