"""A factor of attention scores that grows with the position of the query."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class LengthScale:
  """1 + rate log(1 + floor(pos / every)): sharper attention in long sequences (Llama 4, Ministral
  3).

  The idea is that of scalable softmax (arXiv:2501.19399), in steps of `every` tokens.

  Attributes:
    rate: what a unit of the logarithm adds.
    every: number of tokens with the same factor; 1 for the first ones.
  """

  rate: float = 0.1
  every: int = 8192

  def check(self) -> Iterator[str]:
    if self.every < 1:
      yield f'every={self.every} is not a number of tokens. Expected at least 1.'

  def __call__(self, q_BTNH: jax.Array, pos_BT: jax.Array) -> jax.Array:
    """Return the queries q_BTNH at the positions pos_BT, scaled."""
    factor_BT = 1 + self.rate * jnp.log1p((pos_BT // self.every).astype(jnp.float32))
    return q_BTNH * factor_BT[:, :, None, None].astype(q_BTNH.dtype)
