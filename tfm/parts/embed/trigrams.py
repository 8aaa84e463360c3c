"""Token embeddings that are projected together with those of their neighbours (MobileBERT)."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.parts.around import around
from tfm.parts.embed.tokens import Tokens, _Tokens


@dataclasses.dataclass(frozen=True)
class Trigrams(Tokens):
  """[E[next], E[token], E[previous]] W + b, then all that `Tokens` adds (arXiv:2004.02984). For
  encoders.

  A neighbour outside of the token's document counts as 0. `dim` is the width of the table, and W
  projects 3 times that width to d_model.

  *Differs*: transformers reads the embedding of padding behind the last token of a padded row.
  """

  def make(self, dims):
    return _Trigrams(self, dims)

  def flops(self, d_model):
    return 2 * 3 * (self.dim or d_model) * d_model

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.back:
      yield 'back: trigrams are projected to d_model, and not back. Expected back=no.'

  @property
  def causal(self):
    return False

  @property
  def width(self):
    return None

  @property
  def projects(self):
    return True

  @property
  def early(self):
    return True

  @property
  def beside(self):
    return 3


class _Trigrams(_Tokens):
  spec: Trigrams

  def start(self, inputs, outputs, next_B):
    if next_B is not None:
      raise errors.UserError(
        'trigrams: an embedding reads the next token. Expected an encoder, without a cache.'
      )
    return super().start(inputs, outputs, next_B)

  def joined(self, x_BTD: jax.Array, segment_BT: jax.Array | None) -> jax.Array:
    if segment_BT is None:
      segment_BT = jnp.ones(x_BTD.shape[:2], jnp.int32)
    near_BTPD = around(x_BTD, segment_BT, 3)[:, :, ::-1]
    return near_BTPD.reshape(*near_BTPD.shape[:2], -1)
