"""Logits from a narrow token table, continued to the width of the model by a weight of its own
(MobileBERT).
"""

import dataclasses

import jax

from tfm.parts.dense import Dense
from tfm.parts.head.base import HeadContext
from tfm.parts.head.lm import Lm, Transform, _Lm


@dataclasses.dataclass(frozen=True)
class PartlyTied(Lm):
  """Logits x [table, rest]: the first numbers of x meet the token table, the others a weight
  (arXiv:2004.02984).

  The table is narrower than the model; x, with `transform` or without, is as wide as the model. The
  fields are those of `Lm`."""

  transform: Transform | None = Transform()

  def make(self, dims):
    return _PartlyTied(self, dims)

  def transformed(self, dims):
    return dims.d_model, 'D'

  def fits(self, tower):
    if (e := tower.embed.token_embed) is None:
      yield 'partly_tied returns logits over a vocabulary, and the tower reads no tokens. Expected embed=tokens.'
      return
    if e.dim is None or e.dim >= tower.d_model:
      yield f'the table is as wide as the model ({tower.d_model}). Expected embed.dim below it, or lm=lm.'
    if not self.tied:
      yield 'tied=no: there is no table to continue. Expected tied=yes, or lm=lm.'
    if self.transform is not None and self.transform.dim is not None:
      yield f'transform.dim={self.transform.dim}: x is as wide as the model. Expected transform.dim=none.'


class _PartlyTied(_Lm):
  spec: PartlyTied

  def projected(self, x_BTD: jax.Array, context: HeadContext) -> jax.Array:
    R = context.table.shape[-1]
    rest = Dense('DV', (x_BTD.shape[-1] - R, self.dims.vocab), self.dims, name='rest', role='head')
    return super().projected(x_BTD[..., :R], context) + rest(x_BTD[..., R:])
