"""Token embeddings projected jointly with their neighbours (MobileBERT)."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.parts.around import around
from tfm.parts.embed.tokens import Tokens, _Tokens
from tfm.parts.encoder_only import check_uncached


@dataclasses.dataclass(frozen=True)
class Trigrams(Tokens):
  """Trigram embeddings, [E[next], E[token], E[previous]] W + b (arXiv:2004.02984).

  For encoders. The embeddings of token types and so on are added as in `Tokens`. Neighbours outside
  the document of a token are zero. `dim` is the width of the table, and W projects three times that
  width to d_model.

  Note:
    In transformers the last token before padding uses the embedding of the padding token.
  """

  def make(self, dims):
    return _Trigrams(self, dims)

  def flops(self, d_model):
    return 2 * 3 * (self.dim or d_model) * d_model

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.back:
      yield 'back=true: trigrams are only projected to d_model. Expected back=false.'

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
    check_uncached(next_B is not None, 'trigrams', 'an embedding depends on the next token')
    return super().start(inputs, outputs, next_B)

  def joined(self, x_BTD: jax.Array, segment_BT: jax.Array | None) -> jax.Array:
    if segment_BT is None:
      segment_BT = jnp.ones(x_BTD.shape[:2], jnp.int32)
    near_BTPD = around(x_BTD, segment_BT, 3)[:, :, ::-1]
    return near_BTPD.reshape(*near_BTPD.shape[:2], -1)
