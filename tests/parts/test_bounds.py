"""Bounds that a piece keeps its numbers in: told where they leave nothing."""

import pytest

from tfm.parts.ffn import Glu, Moe
from tfm.parts.mixer import Attention


@pytest.mark.parametrize(
  ('piece', 'said'),
  [
    (Attention(clip=0.0), 'clip=0.0 leaves nothing. Expected more than 0, or none.'),
    (Glu(limit=-1.0), 'limit=-1.0 leaves nothing. Expected more than 0, or none.'),
    (
      Moe(shared_gate=True),
      'shared_gate: gates nothing. Expected a shared feed-forward, or shared_gate=no.',
    ),
  ],
)
def test_what_leaves_nothing_is_told(piece, said):
  assert said in list(piece.check())
