"""A second feed-forward that reads the residual sum itself (X-MOD's language adapters)."""

import dataclasses
from typing import Literal

from tfm.parts.residual_layout.base import ResidualLayout


@dataclasses.dataclass(frozen=True)
class Adapted(ResidualLayout):
  """Post-norm or pre-norm branches, the last of which is an adapter a(x) (arXiv:2205.06266).

  With u the residual sum after `ffn` and n a norm, the sum after the adapter is n(u) + a(n(u)), or
  u + a(n(u)) if not `inside`; a post-norm block ends with the norm of `ffn`. Blocks without
  `second_ffn` are as with `post` or `pre`.

  Attributes:
    pre: norms stand before `mixer`, `cross` and `ffn`, not after them.
    reads: what n is: the norm of `ffn` a second time, one of the adapter's own, or none.
    inside: the residual sum continues from n(u).
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
    waits = name == 'ffn' and 'second_ffn' in branches
    return x_BTD if waits else norm(f'{name}_norm')(x_BTD)

  @property
  def additive(self):
    return False

  @property
  def final_norm(self):
    return self.pre
