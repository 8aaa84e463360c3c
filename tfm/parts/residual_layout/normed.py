"""Normalised residual stream with scales of both terms (MiniMax)."""

import dataclasses

from tfm.parts.residual_layout.base import ResidualLayout


@dataclasses.dataclass(frozen=True)
class Normed(ResidualLayout):
  """Scaled sum a h + b f(h) for each branch f, with h = norm(x) (MiniMax, arXiv:2501.08313).

  This is post-norm with the scales of DeepNorm (arXiv:2203.00555), where each norm belongs to the
  branch after it.

  Attributes:
    mixer: (a, b) of the mixer, and of attention to another tower.
    ffn: (a, b) of the feed-forward.
  """

  mixer: tuple[float, float] = (1.0, 1.0)
  ffn: tuple[float, float] = (1.0, 1.0)

  def __call__(self, x_BTD, branches, norm):
    for name, f in branches.items():
      kept, added = self.ffn if name == 'ffn' else self.mixer
      h_BTD = norm(f'{name}_norm')(x_BTD)
      y_BTD = f(h_BTD, None, h_BTD)
      x_BTD = _scaled(h_BTD, kept) + _scaled(y_BTD, added)
    return x_BTD

  @property
  def additive(self):
    return False


def _scaled(x_BTD, scale):
  return x_BTD if scale == 1 else x_BTD * scale
