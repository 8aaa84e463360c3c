"""A factor of attention scores that grows with the position of the query."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class LengthScale:
  """The query factor 1 + rate log(1 + floor(pos / every)), for long sequences.

  Llama 4 and Ministral 3 use it. It is scalable softmax (arXiv:2501.19399) in steps of `every`
  tokens.

  Attributes:
    rate: the weight of the logarithm.
    every: the number of consecutive positions with the same factor. The first `every` have factor
      1.
  """

  rate: float = 0.1
  every: int = 8192

  def check(self) -> Iterator[str]:
    """Yield a sentence for each invalid field."""
    if self.every < 1:
      yield f'every={self.every} is not a number of tokens. Expected at least 1.'

  def __call__(self, q_BTNH: jax.Array, pos_BT: jax.Array) -> jax.Array:
    """Return the queries scaled by the factor of their positions."""
    factor_BT = 1 + self.rate * jnp.log1p((pos_BT // self.every).astype(jnp.float32))
    return q_BTNH * factor_BT[:, :, None, None].astype(q_BTNH.dtype)
