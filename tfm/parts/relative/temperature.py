"""Position-dependent scaling of queries, for long sequences."""

from collections.abc import Iterator
import dataclasses

import jax.numpy as jnp

from tfm.parts.relative.base import Relative


@dataclasses.dataclass(frozen=True)
class Temperature(Relative):
  """A query factor 1 + scale log(1 + floor((pos + 1) / every)), without rotation.

  Llama 4 uses it in its layers without RoPE, after scalable softmax (arXiv:2501.19399).

  Attributes:
    every: the number of positions per step of the factor.
    scale: the weight of the logarithm.
  """

  every: int = 8192
  scale: float = 0.1

  def check(self) -> Iterator[str]:
    if self.every < 1:
      yield f'every={self.every} is not a number of positions. Expected at least 1.'

  def queries(self, q_BTNH, pos_BT):
    steps_BT = jnp.floor((pos_BT.astype(jnp.float32) + 1) / self.every)
    factor_BT = 1 + self.scale * jnp.log1p(steps_BT)
    return (q_BTNH * factor_BT[:, :, None, None]).astype(q_BTNH.dtype)
