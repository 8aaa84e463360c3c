"""Adapters after the feed-forward, in the residual stream (X-MOD)."""

import dataclasses
from typing import Literal

from tfm.parts.residual_layout.base import ResidualLayout


@dataclasses.dataclass(frozen=True)
class Adapted(ResidualLayout):
  """Post-norm or pre-norm branches followed by an adapter (X-MOD, arXiv:2205.06266).

  The adapter a is `second_ffn`. For the residual sum u after `ffn` and a norm n, the block returns
  n(u) + a(n(u)), or u + a(n(u)) if not `inside`. A post-norm block then applies the norm of `ffn`.
  Blocks without `second_ffn` are as in `post` or `pre`.

  Attributes:
    pre: pre-norm: `mixer`, `cross` and `ffn` have norms before them, not after them.
    reads: the norm n: 'ffn' for the norm of `ffn` once more, 'own' for a separate norm, or 'none'.
    inside: whether n(u) is the residual stream of the adapter, rather than u.
  """

  pre: bool = False
  reads: Literal['ffn', 'own', 'none'] = 'ffn'
  inside: bool = True

  def __call__(self, x_BTD, branches, norm):
    for name in [name for name in branches if name != 'second_ffn']:
      x_BTD = self._joined(x_BTD, name, branches, norm)
    if 'second_ffn' not in branches:
      return x_BTD
    names = {'ffn': 'ffn_norm', 'own': 'second_ffn_norm'}
    normed_BTD = norm(names[self.reads])(x_BTD) if self.reads in names else x_BTD
    stream_BTD = normed_BTD if self.inside else x_BTD
    x_BTD = stream_BTD + branches['second_ffn'](normed_BTD, None, stream_BTD)
    return x_BTD if self.pre else norm('ffn_norm')(x_BTD)

  def _joined(self, x_BTD, name, branches, norm):
    if self.pre:
      return x_BTD + branches[name](norm(f'{name}_norm')(x_BTD), None, x_BTD)
    x_BTD = x_BTD + branches[name](x_BTD, None, x_BTD)
    adapted = name == 'ffn' and 'second_ffn' in branches
    return x_BTD if adapted else norm(f'{name}_norm')(x_BTD)

  @property
  def additive(self):
    return False

  @property
  def final_norm(self):
    return self.pre
