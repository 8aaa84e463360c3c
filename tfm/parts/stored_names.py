"""Names of activations that a rematerialisation policy can store."""

from typing import TypeVar

import jax
from jax.ad_checkpoint import checkpoint_name

T = TypeVar('T', bound=jax.Array)

#: The names and their activations.
NAMES = {
  'residual': 'the input of each block',
  'attention': 'the output of each attention kernel (pallas, blockwise)',
  'mixer': 'the output of each mixer',
  'ffn': 'the output of each feed-forward network',
}


def named(x: T, name: str) -> T:
  """Return an activation under a name of `NAMES`."""
  assert name in NAMES, name
  return checkpoint_name(x, name)
