"""Reversible residual connections."""

import dataclasses

from tfm.parts.residual.base import Residual


@dataclasses.dataclass(frozen=True)
class Reversible(Residual):
  """Two reversible residual streams (RevNet, arXiv:1707.04585; Reformer, arXiv:2001.04451).

  Computes y1 = x1 + F(x2) and y2 = x2 + G(y1), which is inverted by x2 = y2 - G(y1) and x1 = y1 -
  F(x2). Both streams start as the embeddings, and the output of the stack is their mean. F and G
  are the steps of the residual layout (norm and mixer, norm and feed-forward network). With three
  steps the streams alternate.

  Training saves the streams of the last block only, and computes each step once more in the
  backward pass. The streams have the reduce dtype, as 16 bits are too few to invert the sums.

  Note:
    The published code of Reformer concatenates the two streams at the end.
  """

  def make(self, dims):
    return lambda: _Streams(dims.run.precision.reduce, dims.run.precision.compute)

  @property
  def reversible(self):
    return True

  def fits(self, residual_layout):
    if not residual_layout.additive:
      name = residual_layout.table().name_of(residual_layout)
      names = ', '.join(n for n, part in residual_layout.table().items() if part().additive)
      yield (
        f'residual_layout={name} normalises the residual stream, which residual=reversible cannot '
        f'invert. Expected any of {names}.'
      )


@dataclasses.dataclass(frozen=True)
class _Streams:
  reduce: str
  compute: str

  def start(self, x_BTD):
    x_BTD = x_BTD.astype(self.reduce)
    return x_BTD, x_BTD

  def join(self, residual_layout, x_BTD, carry, branches, norm, ctx):
    for step in residual_layout.steps(branches, norm):
      x_BTD, carry = carry + step(x_BTD.astype(self.compute)).astype(self.reduce), x_BTD
    return x_BTD, carry

  def after(self, x_BTD, carry, layer):
    return x_BTD, carry

  def end(self, x_BTD, carry):
    return ((x_BTD + carry) / 2).astype(self.compute)
