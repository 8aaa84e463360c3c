"""Bounds that clip values must be positive."""

import pytest

from tfm.parts.ffn import Glu, Moe
from tfm.parts.mixer import Attention


@pytest.mark.parametrize(
  ('part', 'message'),
  [
    (Attention(clip=0.0), 'clip=0.0 is not positive. Expected more than 0, or none.'),
    (Glu(limit=-1.0), 'limit=-1.0 clips everything. Expected more than 0, or none.'),
    (
      Moe(shared_gate=True),
      'shared_gate=true without a shared network. Expected shared=glu, or shared_gate=false.',
    ),
  ],
)
def test_bounds_out_of_range_are_errors(part, message):
  assert message in list(part.check())
