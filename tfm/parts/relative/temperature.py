"""Queries that grow with their position, so that attention over long rows stays sharp."""

from collections.abc import Iterator
import dataclasses

import jax.numpy as jnp

from tfm.parts.relative.base import Relative


@dataclasses.dataclass(frozen=True)
class Temperature(Relative):
  """q (1 + `scale` log(1 + floor((pos + 1) / `every`))), and no positions otherwise
  (arXiv:2501.19399, Llama 4).
  """

  every: int = 8192
  scale: float = 0.1

  def check(self) -> Iterator[str]:
    if self.every < 1:
      yield f'every={self.every} is no number of positions. Expected at least 1.'

  def queries(self, q_BTNH, pos_BT):
    steps_BT = jnp.floor((pos_BT.astype(jnp.float32) + 1) / self.every)
    factor_BT = 1 + self.scale * jnp.log1p(steps_BT)
    return (q_BTNH * factor_BT[:, :, None, None]).astype(q_BTNH.dtype)
