"""Parameters laid out for decoding, in which reading the weights takes most of the time."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.axes import n_inputs
from tfm.model.loops.layers import unstack
from tfm.model.mtp import one_layer
from tfm.model.spec import Model, Segment, Tower
from tfm.model.stack import Params
from tfm.model.transformer import param_letters
from tfm.parts.int8 import quantize
from tfm.parts.stored import Joined, Rows, Stored


def prepare(spec: Model, params: Params, *, int8: bool = False) -> Params:
  """Return parameters with one tree per layer, for `generate`, `stream` and `apply`.

  A compiled step then reads each weight in place, with its input axes innermost, and updates each
  cache in place. Projections of the same input are fused into one.

  Args:
    spec: The model.
    params: Its parameters, as `init`, `load` or `tfm.quantize` return them.
    int8: Whether to quantize the projections and the token table to int8, with one scale per
      output. The outputs then differ slightly. On a CPU, small batches use bfloat16 activations.
      For other formats pass the result of `tfm.quantize`, whose weights keep their format.

  Returns:
    A copy of the parameters (with `int8` a quarter of their size). Delete the originals if memory
    is short.

  Raises:
    UserError: for parameters that are already prepared, or that belong to another model.

  Example:
    `tfm.generate(spec, prepare(spec, params), prompts, max_new_tokens=64)`
  """
  letters = param_letters(spec)
  structure = jax.tree.structure(params, is_leaf=_is_stored)
  if jax.tree.structure(letters) != structure:  # type: ignore[operator]
    raise errors.UserError(
      'prepare: params do not have the structure of the model. '
      'Expected the result of init(spec, key) or load(path), not prepared before.'
    )
  if int8 and any(map(_is_stored, jax.tree.leaves(params, is_leaf=_is_stored))):
    raise errors.UserError('prepare: params are quantized already. Expected int8=False.')
  return _prepare_tower(spec, spec, params, letters, int8)


def prepared(params: Params) -> bool:
  """Return whether `prepare` has made these parameters."""
  return isinstance(params.get('segment_0'), tuple)


def _prepare_tower(
  spec: Model, tower: Tower, params: Params, letters: Params, int8: bool
) -> Params:
  segments = {f'segment_{i}': segment for i, segment in enumerate(tower.segments)}
  int8_table = int8 and all(getattr(t.embed, 'rows', None) is None for t in (spec, tower))
  new: Params = {}
  for name, subtree in params.items():
    if name in segments:
      layers = _layers(subtree, segments[name], tuple(jax.tree.leaves(letters[name])), int8)
      new[name] = layers * segments[name].repeats if segments[name].shared else layers
    elif name in spec.towers and tower is spec:
      new[name] = _prepare_tower(spec, spec.tower(name), subtree, letters[name], int8)
    elif name == 'mtp':
      new[name] = {
        depth: _prepare_tower(spec, one_layer(spec), p, letters[name][depth], int8)
        for depth, p in subtree.items()
      }
    else:
      lay_out = functools.partial(_outside_layers, name, int8_table, int8)
      new[name] = jax.tree.map_with_path(lay_out, subtree, letters[name], is_leaf=_is_stored)
  return new


def _outside_layers(
  name: str, int8_table: bool, int8: bool, path: Any, w: jax.Array, letters: str
) -> Any:
  """Return a parameter of the embedding or a head in its new layout."""
  if _is_stored(w):
    return w
  if name == 'embed' and path[-1].key == 'table' and len(path) == 1:
    return _table(w) if int8_table else w
  return _kernel(w, letters, int8) if _is_kernel(path, letters) else w


# Compiled per segment with static arguments, so that a second `prepare` of a model reuses them.
@functools.partial(jax.jit, static_argnames=('segment', 'letters', 'int8'))
def _layers(
  params: Params, segment: Segment, letters: tuple[str, ...], int8: bool
) -> tuple[Params, ...]:
  axes = jax.tree.unflatten(jax.tree.structure(params, is_leaf=_is_stored), letters)

  def lay(path: Any, w: Any, axes: str) -> Any:
    if _is_stored(w) or not _is_kernel(path, axes):
      return w
    return _lay_out(_rounded(segment, path, w), axes, int8)

  laid_out = jax.tree.map_with_path(lay, params, axes, is_leaf=_is_stored)
  stacked = _fuse_projections(segment, laid_out)
  return (stacked,) if segment.shared else unstack(stacked)


def _rounded(segment: Segment, path: Any, w: jax.Array) -> jax.Array:
  """Return the weights of a projection of all layers as its block rounds them."""
  rounding = segment.pattern[int(path[0].key.removeprefix('block_'))].rounding
  if not rounding.wraps(path[-2].key):
    return w
  return rounding.weight(w, 0 if segment.shared else 1)


def _fuse_projections(segment: Segment, params: Params) -> Params:
  """Return the layers of a segment with the projections of one input fused into one."""
  new = dict(params)
  for j, block in enumerate(segment.pattern):
    name = f'block_{j}'
    for part in ('mixer', 'ffn'):
      for group in getattr(getattr(block, part), 'joined', ()):
        new[name] = new[name] | {part: _fuse(new[name][part], group, segment.shared)}
  return new


def _fuse(params: Params, names: tuple[str, ...], shared: bool) -> Params:
  kernels = [params[name]['kernel'] for name in names]
  # Only some may be quantized.
  if any(type(kernel) is not type(kernels[0]) for kernel in kernels):
    return params
  join = type(kernels[0]).joined
  whole = (join if shared else jax.vmap(join))(kernels)
  rest: Params = {}
  for name in names:
    rest[name] = {n: p for n, p in params[name].items() if n != 'kernel'}
  rest[names[0]]['kernel'] = Joined(whole, tuple(kernel.out for kernel in kernels))
  return params | rest


def _is_stored(w: Any) -> bool:
  return isinstance(w, Stored)


def _is_kernel(path: Any, letters: str) -> bool:
  # Experts keep their layout: only the chosen ones are read, one after the other.
  return path[-1].key == 'kernel' and 'E' not in letters


def _lay_out(w: jax.Array, letters: str, int8: bool) -> Any:
  lay = lambda w: (quantize if int8 else Rows.of)(w, n_inputs(letters.removeprefix('L')))
  return (jax.vmap(lay) if letters.startswith('L') else lay)(w)


_kernel = jax.jit(_lay_out, static_argnames=('letters', 'int8'))
_table = jax.jit(lambda w_VD: quantize(jnp.swapaxes(w_VD, 0, 1), 1))
