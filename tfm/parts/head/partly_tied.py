"""Language-model head that is tied to a narrow token table in part (MobileBERT)."""

import dataclasses

import jax

from tfm.parts.dense import Dense
from tfm.parts.head.base import HeadContext
from tfm.parts.head.factors import LogitFactors
from tfm.parts.head.lm import Lm, Transform, _Lm


@dataclasses.dataclass(frozen=True)
class PartlyTied(Lm):
  """Logits x [table, rest] with a narrow token table and a separate weight (arXiv:2004.02984).

  The token table is narrower than the model. Its entries are multiplied with the first numbers of
  x, and the separate weight with the others. x has the width of the model, also after `transform`.
  The fields are documented in `Lm`.
  """

  transform: Transform | None = Transform()

  def make(self, dims):
    return _PartlyTied(self, dims)

  def transformed(self, dims):
    return dims.d_model, 'D'

  def fits(self, tower):
    if (e := tower.embed.token_embed) is None:
      yield (
        'lm=partly_tied needs a vocabulary, and the input layer has no tokens. '
        'Expected embed=tokens.'
      )
      return
    if e.dim is None or e.dim >= tower.d_model:
      yield (
        f'the token table is as wide as the model ({tower.d_model}). '
        'Expected a smaller embed.dim, or lm=lm.'
      )
    if not self.tied:
      yield 'tied=false: lm=partly_tied uses the token table. Expected tied=true, or lm=lm.'
    if self.transform is not None and self.transform.dim is not None:
      yield (
        f'transform.dim={self.transform.dim}: the head needs the width of the model. '
        'Expected transform.dim=none.'
      )


class _PartlyTied(_Lm):
  spec: PartlyTied

  def factors(self, x_BTD: jax.Array, context: HeadContext) -> LogitFactors | None:
    return None  # two products

  def projected(self, x_BTD: jax.Array, context: HeadContext) -> jax.Array:
    R = context.table.shape[-1]
    rest = Dense('DV', (x_BTD.shape[-1] - R, self.dims.vocab), self.dims, name='rest', role='head')
    return super().projected(x_BTD[..., :R], context) + rest(x_BTD[..., R:])
