"""Two streams, each written from the other, so that a block's input follows from its output
(RevNet, Reformer).
"""

import dataclasses

from tfm.parts.residual.base import Residual


@dataclasses.dataclass(frozen=True)
class Reversible(Residual):
  """y1 = x1 + F(x2), y2 = x2 + G(y1), undone by x2 = y2 - G(y1), x1 = y1 - F(x2) (arXiv:1707.04585,
  2001.04451).

  Both streams start as the embeddings; their mean leaves the stack. F and G are the steps of the
  block's residual_layout (norm and mixer, norm and feed-forward), which take turns also if there
  are three.

  *Cost*: training keeps the last block's streams only, whatever the depth, and computes each step
  once more than a plain backward pass. The streams are held in the reduce dtype: 16 bits could not
  be undone.

  *Differs*: the Reformer's published code ends with both streams, side by side.
  """

  def make(self, dims):
    return lambda: _Streams(dims.run.precision.reduce, dims.run.precision.compute)

  @property
  def reversible(self):
    return True

  def fits(self, residual_layout):
    if not residual_layout.additive:
      name = residual_layout.table().name_of(residual_layout)
      known = ', '.join(n for n, row in residual_layout.table().items() if row().additive)
      yield f'residual_layout={name} normalises the stream itself, which residual=reversible cannot undo. Expected {known}.'


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
