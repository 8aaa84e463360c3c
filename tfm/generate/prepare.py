"""Parameters laid out for decoding, where the time goes into reading them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.axes import n_inputs
from tfm.model.loops.layers import unstack
from tfm.model.mtp import one_layer
from tfm.model.spec import Model, Segment, Tower
from tfm.model.transformer import param_letters
from tfm.parts.int8 import quantize
from tfm.parts.stored import Joined, Rows

Params = dict[str, Any]


def prepare(spec: Model, params: Params, *, int8: bool = False) -> Params:
  """The parameters with a tree a layer instead of a stack, for `generate`, `stream` and `apply`.

  A compiled step then reads each weight where it stands, its inputs innermost and those of one
  input as one, and writes each cache in place. With `int8` the projections and the token table have
  one byte a number and one scale an output, which is not quite the same model; on a CPU few rows of
  activations then have two bytes a number.

  *Cost*: a copy of the parameters (with `int8`, a quarter of one); drop the originals if memory is
  short.

  *Raises*: UserError for parameters that are prepared already, or a run's other choice of them.

  *Example*: `tfm.generate(spec, prepare(spec, params), prompts, max_new_tokens=64)`
  """
  letters = param_letters(spec)
  same = jax.tree.structure(letters) == jax.tree.structure(params)  # type: ignore[operator]
  if not same:
    raise errors.UserError(
      'prepare: the parameters are not those of the model. Expected what init(spec, key) or '
      'load(path) gives; '
      'parameters that are prepared already need it no more.'
    )
  return _laid(spec, spec, params, letters, int8)


def prepared(params: Params) -> bool:
  """Whether `prepare` has made them."""
  return isinstance(params.get('segment_0'), tuple)


def _laid(spec: Model, stack: Tower, params: Params, letters: Params, int8: bool) -> Params:
  segments = {f'segment_{i}': segment for i, segment in enumerate(stack.segments)}
  small = int8 and all(getattr(t.embed, 'rows', None) is None for t in (spec, stack))
  laid: Params = {}
  for name, own in params.items():
    if name in segments:
      layers = _layers(own, segments[name], tuple(jax.tree.leaves(letters[name])), int8)
      laid[name] = layers * segments[name].repeats if segments[name].shared else layers
    elif name in spec.towers and stack is spec:
      laid[name] = _laid(spec, spec.tower(name), own, letters[name], int8)
    elif name == 'mtp':
      laid[name] = {
        depth: _laid(spec, one_layer(spec), p, letters[name][depth], int8)
        for depth, p in own.items()
      }
    else:
      laid[name] = jax.tree.map_with_path(
        functools.partial(_beside, name, small, int8), own, letters[name]
      )
  return laid


def _beside(name: str, small: bool, int8: bool, path: Any, w: jax.Array, letters: str) -> Any:
  """A parameter of no layer: the embedding's and the head's."""
  if name == 'embed' and path[-1].key == 'table' and len(path) == 1:
    return _table(w) if small else w
  return _kernel(w, letters, int8) if _is_kernel(path, letters) else w


# Programs of their own, by what is static: the next call of `prepare` for the model compiles none.
@functools.partial(jax.jit, static_argnames=('segment', 'letters', 'int8'))
def _layers(
  params: Params, segment: Segment, letters: tuple[str, ...], int8: bool
) -> tuple[Params, ...]:
  axes = jax.tree.unflatten(jax.tree.structure(params), letters)
  lay = lambda path, w, axes: (
    _lay(_rounded(segment, path, w), axes, int8) if _is_kernel(path, axes) else w
  )
  own = _joined(segment, jax.tree.map_with_path(lay, params, axes))
  return (own,) if segment.shared else unstack(own)


def _rounded(segment: Segment, path: Any, w: jax.Array) -> jax.Array:
  """Return the weights of a projection of all layers as its block rounds them."""
  rounding = segment.pattern[int(path[0].key.removeprefix('block_'))].rounding
  if not rounding.wraps(path[-2].key):
    return w
  return rounding.weight(w, 0 if segment.shared else 1)


def _joined(segment: Segment, params: Params) -> Params:
  """The layers of a segment, in which projections of one input are laid out as one."""
  laid = dict(params)
  for j, block in enumerate(segment.pattern):
    name = f'block_{j}'
    for part in ('mixer', 'ffn'):
      for group in getattr(getattr(block, part), 'joined', ()):
        laid[name] = laid[name] | {part: _as_one(laid[name][part], group, segment.shared)}
  return laid


def _as_one(params: Params, names: tuple[str, ...], shared: bool) -> Params:
  kernels = [params[name]['kernel'] for name in names]
  join = type(kernels[0]).joined
  whole = (join if shared else jax.vmap(join))(kernels)
  rest = {name: {n: p for n, p in params[name].items() if n != 'kernel'} for name in names}
  rest[names[0]]['kernel'] = Joined(whole, tuple(kernel.out for kernel in kernels))
  return params | rest


def _is_kernel(path: Any, letters: str) -> bool:
  # Of experts only those that are chosen are read, one after the other, where they stand.
  return path[-1].key == 'kernel' and 'E' not in letters


def _lay(w: jax.Array, letters: str, int8: bool) -> Any:
  lay = lambda w: (quantize if int8 else Rows.of)(w, n_inputs(letters.removeprefix('L')))
  return (jax.vmap(lay) if letters.startswith('L') else lay)(w)


_kernel = jax.jit(_lay, static_argnames=('letters', 'int8'))
_table = jax.jit(lambda w_VD: quantize(jnp.swapaxes(w_VD, 0, 1), 1))
