"""Freed memory is kept by the process and used again."""

import platform
import subprocess
import sys

import pytest

_STEPS = """
import resource, sys
import jax, jax.numpy as jnp
from tfm.train import memory

if sys.argv[1] == 'keep':
  assert memory.keep_freed_memory()
# A product reads its operands from memory: 64 MB of temporaries.
step = jax.jit(lambda x: jnp.sin(x[:, None] + x[None]) @ x[:, None])
x = jnp.arange(4096, dtype=jnp.float32)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fresh = []
for _ in range(21):
  before = faults()
  step(x).block_until_ready()
  fresh.append((faults() - before) * resource.getpagesize())
# The heap grows over the first few steps, until each block finds a place.
print(sorted(fresh)[len(fresh) // 2])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='keep_freed_memory needs glibc')
@pytest.mark.large
def test_freed_memory_is_reused():
  fresh = {}
  for how in ('plain', 'keep'):
    run = subprocess.run(
      [sys.executable, '-c', _STEPS, how], capture_output=True, text=True, check=True
    )
    fresh[how] = int(run.stdout)
  assert fresh['plain'] > 50e6, 'the program has no temporaries, so this test checks nothing'
  assert fresh['keep'] < 1e6
