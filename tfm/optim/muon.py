"""Muon for the matrices of the layers, AdamW for everything else."""

from collections.abc import Iterator
import dataclasses
import math
from typing import Any

import jax
import optax
from optax import contrib

from tfm.optim.base import Letters, Optim, matching, share
from tfm.optim.layout import is_hidden_matrix, layout


@dataclasses.dataclass(frozen=True)
class Muon(Optim):
  """U V^T of the momentum U S V^T, by Newton-Schulz steps (Jordan 2024,
  github.com/KellerJordan/Muon).

  Each layer and expert of a stacked parameter is a matrix of its own, heads folded: `LDNH` is L
  matrices D x NH, `LNHD` is L of NH x D. Tables (embedding, head, positions), norms and biases take
  AdamW with `adam_lr`, which follows the same schedule.

  Cost: 6 matmuls of the smaller side a Newton-Schulz step, for each matrix. Differs: the iteration
  stops where singular values lie in about 0.7 to 1.2, as the original's does."""

  lr: float = 0.02
  decay: float = 0.0
  momentum: float = 0.95
  nesterov: bool = True
  iterations: int = 5
  #: If given (0.2 is usual), updates have about this root mean square whatever the shape
  #: (arXiv:2502.16982), so that one learning rate serves both; None scales by sqrt(max(1, outputs /
  #: inputs)) as the original does.
  rms: float | None = None
  adam_lr: float = 3e-4
  b1: float = 0.9
  b2: float = 0.95
  eps: float = 1e-8
  #: Globs over parameter paths that AdamW takes besides.
  adam: tuple[str, ...] = ()

  def owned(self, letters: Letters) -> Any:
    """The tree of whether Muon, and not AdamW, updates a parameter."""
    exempt = matching('optim.adam', self.adam, letters)
    return jax.tree.map(lambda x, out: is_hidden_matrix(x) and not out, letters, exempt)

  def rule(self, letters: Letters) -> optax.GradientTransformation:
    owned = self.owned(letters)
    masked = jax.tree.map(lambda mine, x: x if mine else optax.MaskedNode(), owned, letters)
    orthogonal = optax.chain(
      contrib.scale_by_muon(
        ns_steps=self.iterations,
        beta=self.momentum,
        nesterov=self.nesterov,
        weight_dimension_numbers=lambda _: jax.tree.map(dimension_numbers, masked),
      ),
      optax.stateless(
        lambda u, _: jax.tree.map(lambda x, l: x * self.shape_factor(x.shape, l), u, masked)
      ),
    )
    return optax.partition(
      {'muon': orthogonal, 'adam': optax.scale_by_adam(self.b1, self.b2, self.eps)},
      jax.tree.map(lambda mine: 'muon' if mine else 'adam', owned),
    )

  def scale(self, letters: Letters) -> Any:
    return jax.tree.map(lambda mine: 1.0 if mine else self.adam_lr / self.lr, self.owned(letters))

  def shape_factor(self, shape: tuple[int, ...], letters: str) -> float:
    """What an orthogonal update of a parameter of this shape is multiplied by."""
    numbers = dimension_numbers(letters)
    inputs = math.prod(shape[i] for i in numbers.reduction_axis)
    outputs = math.prod(shape[i] for i in numbers.output_axis)
    return (
      math.sqrt(max(1, outputs / inputs))
      if self.rms is None
      else self.rms * math.sqrt(max(inputs, outputs))
    )

  def check(self) -> Iterator[str]:
    yield from super().check()
    yield from share('momentum', self.momentum)
    yield from share('b1', self.b1)
    yield from share('b2', self.b2)
    for name in ('iterations', 'adam_lr', 'eps'):
      if getattr(self, name) <= 0:
        yield f'{name}: {getattr(self, name)} leaves no update. Expected more than 0.'
    if self.rms is not None and self.rms <= 0:
      yield f'rms: {self.rms} leaves no update. Expected more than 0, or none.'


def dimension_numbers(letters: str) -> contrib.MuonDimensionNumbers:
  """Which axes of a hidden matrix are its inputs and outputs; optax takes the others for separate
  matrices.
  """
  stack, (inputs, outputs) = layout(letters)
  first, second = len(stack), len(stack) + len(inputs)
  return contrib.MuonDimensionNumbers(
    tuple(range(first, second)), tuple(range(second, second + len(outputs)))
  )
