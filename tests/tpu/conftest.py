"""Compilation for TPUs on any machine: libtpu describes the chips and compiles for them."""

import importlib.util
import os

import jax
from jax.experimental.compilation_cache import compilation_cache
import pytest

# By default, libtpu queries the cloud for the TPU of this machine, from one process at a time.
os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
if importlib.util.find_spec('libtpu') is not None:
  # libtpu parses XLA_FLAGS too, and exits on flags of the CPU backend.
  flags = os.environ.get('XLA_FLAGS', '').split()
  os.environ['XLA_FLAGS'] = ' '.join(flag for flag in flags if not flag.startswith('--xla_cpu'))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  if importlib.util.find_spec('libtpu') is None:
    skip = pytest.mark.skip(
      reason='libtpu not installed: bash scripts/test.sh --tpu installs it and compiles for TPUs'
    )
    for item in (i for i in items if i.get_closest_marker('tpu')):
      item.add_marker(skip)


@pytest.fixture
def chips():
  """Return the four chips of a TPU v5e topology, without hardware."""
  from jax.experimental import topologies

  # A cached program cannot be loaded without the chip.
  before = jax.config.jax_enable_compilation_cache
  jax.config.update('jax_enable_compilation_cache', False)
  compilation_cache.reset_cache()
  yield topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x2').devices
  jax.config.update('jax_enable_compilation_cache', before)
  compilation_cache.reset_cache()
