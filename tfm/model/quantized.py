"""Parameters with quantized weights, for inference and for adapters on frozen weights."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.axes import n_inputs
from tfm.model.spec import Model, blocks
from tfm.model.stack import Params
from tfm.model.transformer import param_letters
from tfm.parts.quantize import TABLE, Quantize
from tfm.parts.quantize.base import LowPrecision
from tfm.parts.quantize.products import qwix
from tfm.parts.quantize.stored import Quantized, QuantizedExperts
from tfm.parts.rounding import Rounding
from tfm.parts.stored import Stored


def quantize(spec: Model, params: Params, to: str | Quantize = 'int4') -> Params:
  """Return parameters with weights in 4 or 8 bits, for `apply` and `generate`.

  Only the weights are quantized: products are computed in the compute dtype. The tree has the same
  paths, and the layers of a segment stay stacked.

  Args:
    spec: The model.
    params: Its parameters, as `init` or `load` return them.
    to: A name in `tfm.parts.quantize`, or a quantization. Its fields `weights`, `tile`, `targets`
      and `skip` are used.

  Returns:
    A copy of the parameters. Delete the originals if memory is short.

  Raises:
    UserError: for parameters of another model, a model whose blocks round their projections, or a
      tile that does not divide the inputs of a weight.

  Example:
    `params = tfm.quantize(spec, params, 'int4')`
  """
  how = TABLE[to]() if isinstance(to, str) else to
  if not isinstance(how, LowPrecision):
    listed = ', '.join(name for name in TABLE if name != 'none')
    raise errors.UserError(f'quantize: {to!r} quantizes no weights. Expected one of {listed}.')
  for sentence in how.check():
    raise errors.UserError(f'quantize: {sentence}')
  letters = param_letters(spec)
  if jax.tree.structure(letters) != jax.tree.structure(params):  # type: ignore[operator]
    raise errors.UserError(
      'quantize: params do not have the structure of the model. '
      'Expected the result of init(spec, key) or load(path), not quantized or prepared before.'
    )
  towers = (spec, *map(spec.tower, spec.towers))
  if any(block.rounding != Rounding() for tower in towers for block in blocks(tower)):
    raise errors.UserError(
      'quantize: the model rounds its projections itself. '
      'Expected rounding=none, or prepare(spec, params, int8=True).'
    )
  qwix()
  return jax.tree.map_with_path(functools.partial(_quantized, how), params, letters)


def quantized_letters(letters: Any, params: Params) -> Any:
  """Return the axis letters of every array of quantized parameters.

  Args:
    letters: The axis letters of the parameters before they were quantized.
    params: The quantized parameters, or their shapes.

  Returns:
    A tree with the structure of `params`. Axes that were joined have the letter of the first one.
  """

  def of(path: Any, w: Any, letters: str) -> Any:
    if not isinstance(w, Stored):
      return letters
    one = letters.removeprefix('L')
    stack = letters[: len(letters) - len(one)]
    is_table = [entry.key for entry in path[-2:]] == ['embed', 'table']
    if not isinstance(w, QuantizedExperts) and not is_table:  # the rows of a table are its outputs
      one = one[n_inputs(one)] + one[0]
    largest = max(jax.tree.leaves(w), key=lambda array: array.size).shape

    def mark(array: jax.Array) -> str:
      marks = [*stack, *one]
      for axis, size in enumerate(array.shape):
        if size != largest[axis]:  # scales have one entry for several inputs
          marks[axis] = '-'
      return ''.join(marks)

    return jax.tree.map(mark, w)

  is_leaf = lambda w: not isinstance(w, dict)
  return jax.tree.map_with_path(of, params, letters, is_leaf=is_leaf)


def _quantized(how: LowPrecision, path: Any, w: jax.Array, letters: str) -> Any:
  """Return a parameter in the format of its role."""
  names = [entry.key for entry in path]
  if names[-2:] == ['embed', 'table'] and how.wraps('table'):
    return _table(w, how.weights, how.tile)
  if names[-1] != 'kernel' or not how.wraps(names[-2]):
    return w
  try:
    return _kernel(w, letters, how.weights, how.tile)
  except errors.UserError as error:
    raise errors.UserError(f'{"/".join(names)}: {error}') from error


@functools.partial(jax.jit, static_argnames=('letters', 'form', 'tile'))
def _kernel(w: jax.Array, letters: str, form: str, tile: int | None) -> Any:
  one = letters.removeprefix('L')

  def of(w: jax.Array) -> Stored:
    if one.startswith('E'):
      return QuantizedExperts.of(w, form, tile)
    return Quantized.of(w, n_inputs(one), form, tile)

  return (jax.vmap(of) if letters.startswith('L') else of)(w)


@functools.partial(jax.jit, static_argnames=('form', 'tile'))
def _table(w_VD: jax.Array, form: str, tile: int | None) -> Quantized:
  return Quantized.of(jnp.swapaxes(w_VD, 0, 1), 1, form, tile)
