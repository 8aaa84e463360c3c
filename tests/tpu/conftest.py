"""Compilation for TPUs on any machine: libtpu describes the chips and compiles for them."""

import importlib.util
import os

import jax
from jax.experimental.compilation_cache import compilation_cache
import pytest

# Otherwise libtpu asks the cloud which TPU it stands on, and lets one process at a time ask.
os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
if importlib.util.find_spec('libtpu') is not None:
  # It reads XLA's flags too, and ends the process over those that are for CPUs.
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

  # A program for a chip that is not there is no program that can be read back.
  before = jax.config.jax_enable_compilation_cache
  jax.config.update('jax_enable_compilation_cache', False)
  compilation_cache.reset_cache()
  yield topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x2').devices
  jax.config.update('jax_enable_compilation_cache', before)
  compilation_cache.reset_cache()
