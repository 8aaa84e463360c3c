"""JAX's splash attention compiles for TPUs with the arguments of `tfm`, forward and backward."""

import jax
import numpy as np
import pytest

from tests.tpu.cases import Case, lowered
from tfm.parts.attend.splash import Splash
from tfm.parts.mask import Mask, Window

pytestmark = pytest.mark.tpu

CASES = {
  'causal': Case(H=64, Hv=64),
  'full': Case(Mask(), T=1000, K=8),
  'window': Case(Window(256), dtype='float32'),
  'cap': Case(cap=30.0, H=256, Hv=256),
  'sink': Case(sink=True, K=1, N=32),
  'other_keys': Case(Mask(), T=300, S=2048),
  'odd_heads': Case(H=72, Hv=40),
  'all': Case(Window(100), cap=30.0, sink=True, T=700, H=256, Hv=256, dtype='float32'),
}


@pytest.mark.parametrize('name', CASES)
def test_splash_compiles_for_a_tpu(name, chips):
  text = lowered(CASES[name], chips, kernel=Splash()).compile().as_text()
  assert text.count('custom_call_target="tpu_custom_call"') == 3


def test_splash_memory_is_linear_in_the_length(chips):
  case = Case(B=1, T=16_384)
  compiled = lowered(case, chips, kernel=Splash()).compile()
  # The kernel stores every sum of exponentials 128 times, in float32.
  assert compiled.memory_analysis().temp_size_in_bytes <= 8 * 2 * case.T * case.N * case.H


@pytest.mark.parametrize(('tensor', 'K'), [(2, 2), (4, 2)])
def test_splash_over_a_mesh_needs_no_gather(tensor, K, chips):
  axes = (jax.sharding.AxisType.Auto,) * 2
  mesh = jax.sharding.Mesh(
    np.array(chips).reshape(4 // tensor, tensor), ('data', 'tensor'), axis_types=axes
  )
  rules = (('B', ('data',)), ('N', ('tensor',)), ('K', ('tensor',) if K % tensor == 0 else ()))
  text = lowered(Case(T=512, K=K, B=4), chips, mesh, rules, Splash()).compile().as_text()
  assert text.count('custom_call_target="tpu_custom_call"') == 3
  assert 'all-gather' not in text
  assert 'all-to-all' not in text
