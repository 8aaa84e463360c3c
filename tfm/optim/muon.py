"""Muon for the matrices of layers, AdamW for other parameters."""

from collections.abc import Iterator
import dataclasses
import math
from typing import Any

import jax
import optax
from optax import contrib

from tfm.optim.base import Letters, Optim, check_decay, matching
from tfm.optim.layout import is_hidden_matrix, layout


@dataclasses.dataclass(frozen=True)
class Muon(Optim):
  """Orthogonalised momentum by Newton-Schulz steps (Jordan, 2024, github.com/KellerJordan/Muon).

  The momentum U S V^T becomes U V^T, with singular values of about 0.7 to 1.2. Each layer and
  expert of a stacked parameter is a separate matrix, with heads folded: `LDNH` is L matrices
  D x NH, and `LNHD` is L matrices NH x D. Tables (embedding, head, positions), norms and biases
  use AdamW with `adam_lr`, on the same schedule. A Newton-Schulz step takes 6 matrix products of
  the smaller side.

  Attributes:
    momentum: Decay of the momentum.
    nesterov: Use Nesterov momentum.
    iterations: The number of Newton-Schulz steps.
    rms: The root mean square of updates of every shape (0.2 is usual, arXiv:2502.16982), so that
      one learning rate serves both rules. None scales by sqrt(max(1, outputs / inputs)), as the
      original.
    adam_lr: The learning rate of AdamW.
    b1: The b1 of AdamW.
    b2: The b2 of AdamW.
    eps: The eps of AdamW.
    adam: Globs over the paths of further parameters for AdamW.
  """

  lr: float = 0.02
  decay: float = 0.0
  momentum: float = 0.95
  nesterov: bool = True
  iterations: int = 5
  rms: float | None = None
  adam_lr: float = 3e-4
  b1: float = 0.9
  b2: float = 0.95
  eps: float = 1e-8
  adam: tuple[str, ...] = ()

  def uses_muon(self, letters: Letters) -> Any:
    """Return which parameters Muon updates, as a tree of booleans."""
    exempt = matching('optim.adam', self.adam, letters)
    return jax.tree.map(lambda x, out: is_hidden_matrix(x) and not out, letters, exempt)

  def rule(self, letters: Letters) -> optax.GradientTransformation:
    muon = self.uses_muon(letters)
    masked = jax.tree.map(lambda is_muon, x: x if is_muon else optax.MaskedNode(), muon, letters)

    def rescale(updates: Any, _: Any) -> Any:
      factor = lambda x, letters: x * self.shape_factor(x.shape, letters)
      return jax.tree.map(factor, updates, masked)

    orthogonal = optax.chain(
      contrib.scale_by_muon(
        ns_steps=self.iterations,
        beta=self.momentum,
        nesterov=self.nesterov,
        weight_dimension_numbers=lambda _: jax.tree.map(dimension_numbers, masked),
      ),
      optax.stateless(rescale),
    )
    return optax.partition(
      {'muon': orthogonal, 'adam': optax.scale_by_adam(self.b1, self.b2, self.eps)},
      jax.tree.map(lambda is_muon: 'muon' if is_muon else 'adam', muon),
    )

  def scale(self, letters: Letters) -> Any:
    factor = lambda is_muon: 1.0 if is_muon else self.adam_lr / self.lr
    return jax.tree.map(factor, self.uses_muon(letters))

  def shape_factor(self, shape: tuple[int, ...], letters: str) -> float:
    """Return the factor of an orthogonal update of this shape."""
    numbers = dimension_numbers(letters)
    inputs = math.prod(shape[i] for i in numbers.reduction_axis)
    outputs = math.prod(shape[i] for i in numbers.output_axis)
    if self.rms is None:
      return math.sqrt(max(1, outputs / inputs))
    return self.rms * math.sqrt(max(inputs, outputs))

  def check(self) -> Iterator[str]:
    yield from super().check()
    yield from check_decay('momentum', self.momentum)
    yield from check_decay('b1', self.b1)
    yield from check_decay('b2', self.b2)
    for name in ('iterations', 'adam_lr', 'eps'):
      if getattr(self, name) <= 0:
        yield f'{name}: is {getattr(self, name)}. Expected more than 0.'
    if self.rms is not None and self.rms <= 0:
      yield f'rms: is {self.rms}. Expected more than 0, or none.'


def dimension_numbers(letters: str) -> contrib.MuonDimensionNumbers:
  """Return the input and output axes of a hidden matrix. Other axes stack separate matrices."""
  stack, (inputs, outputs) = layout(letters)
  first, second = len(stack), len(stack) + len(inputs)
  return contrib.MuonDimensionNumbers(
    tuple(range(first, second)), tuple(range(second, second + len(outputs)))
  )
