"""Base class of quantizations: projections computed with 4 or 8-bit numbers."""

from collections.abc import Iterator
import dataclasses
from fnmatch import fnmatchcase

import jax

from tfm.core.registry import Part
from tfm.parts.contract import contract
from tfm.parts.grouped import grouped_product
from tfm.parts.rounding.base import is_exact

#: Number formats of qwix, and whether they are integers.
FORMATS = {
  'int8': True, 'int4': True, 'float8_e4m3fn': False, 'float8_e5m2': False, 'nf4': False,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Quantize(Part):
  """Projections in the compute dtype."""

  def wraps(self, role: str) -> bool:
    """Return whether projections with this role ('q', 'up', ...) are quantized."""
    return False

  def contract(self, x: jax.Array, w: jax.Array, n_in: int = 1) -> jax.Array:
    """Return x W, with the arguments of `tfm.parts.contract.contract`."""
    return contract(x, w, n_in)

  def grouped(self, x_ri: jax.Array, w_Eio: jax.Array, sizes_E: jax.Array) -> jax.Array:
    """Return x W of experts, with the arguments of `grouped_product`."""
    return grouped_product(x_ri, w_Eio, sizes_E)


@dataclasses.dataclass(frozen=True)
class LowPrecision(Quantize):
  """Projections with quantized weights and, in training, quantized inputs and gradients.

  Each output of a weight has its own scale, and so does each token of an input: the largest
  absolute value divided by the largest number of the format. Gradients are straight-through.

  Attributes:
    weights: format of weights, one of `FORMATS`.
    inputs: format of inputs; None: the compute dtype. The product of two 8-bit formats is
      computed in 8 bits.
    gradients: format of the gradients of outputs. Both products of the backward pass then use
      quantized operands. None: the backward pass uses the unquantized inputs and weights.
    tile: number of inputs that share a scale; None: all. It must divide the number of inputs. A
      tile of less than 128 is dequantized before the product.
    targets: patterns of the roles of quantized projections, such as 'up' or '*'.
    skip: patterns of roles to leave out. 'head' is the language-model head, 'table' the token
      table, which is only quantized in stored weights. Router scores are never quantized.
  """

  weights: str = 'int8'
  inputs: str | None = None
  gradients: str | None = None
  tile: int | None = None
  targets: tuple[str, ...] = ('*',)
  skip: tuple[str, ...] = ('head', 'table')

  def check(self) -> Iterator[str]:
    formats = {'weights': self.weights, 'inputs': self.inputs, 'gradients': self.gradients}
    given = {name: value for name, value in formats.items() if value is not None}
    for name, value in given.items():
      if value not in FORMATS:
        yield f'{name}={value!r} is unknown. Expected {", ".join(FORMATS)}.'
        return
    if len({FORMATS[value] for value in given.values()}) > 1:
      listed = ' and '.join(f'{name}={value}' for name, value in given.items())
      yield f'{listed} mix integers and floats. Expected formats of one kind.'
    if self.gradients is not None and self.inputs is None:
      yield f'gradients={self.gradients} needs quantized inputs. Expected inputs={self.weights}.'
    if self.tile is not None and self.tile < 1:
      yield f'tile={self.tile} is not a size. Expected at least 1, or none.'
    if not self.targets:
      yield 'targets is empty. Expected roles such as q or up, or quantize=none.'

  def wraps(self, role):
    if is_exact(role) or any(fnmatchcase(role, p) for p in self.skip):
      return False
    return any(fnmatchcase(role, p) for p in self.targets)

  def contract(self, x, w, n_in=1):
    from tfm.parts.quantize import products

    return products.contract(x, w, n_in, self._formats())

  def grouped(self, x_ri, w_Eio, sizes_E):
    from tfm.parts.quantize import products

    return products.grouped(x_ri, w_Eio, sizes_E, self._formats())

  def _formats(self):
    from tfm.parts.quantize.products import Formats

    return Formats(self.weights, self.inputs, self.gradients, self.tile)
