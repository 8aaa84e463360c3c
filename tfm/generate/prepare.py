"""Parameters laid out for decoding, where the time goes into reading them."""

from typing import Any

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.axes import n_inputs
from tfm.model.mtp import one_layer
from tfm.model.spec import Encoder, Model, Segment
from tfm.model.stack import unstack
from tfm.model.transformer import param_letters
from tfm.parts.int8 import quantize
from tfm.parts.stored import Joined, Rows

Params = dict[str, Any]
_unstack = jax.jit(unstack)


def prepare(spec: Model, params: Params, *, int8: bool = False) -> Params:
  """The parameters with a tree a layer instead of a stack, for `generate`, `stream` and `apply`.

  A compiled step then reads each weight where it stands, its inputs innermost and those of one input as one, and writes
  each cache in place. With `int8` the projections and the token table have one byte a number and one scale an output,
  which is not quite the same model; on a CPU few rows of activations then have two bytes a number.

  *Cost*: a copy of the parameters (with `int8`, a quarter of one); drop the originals if memory is short.

  *Raises*: UserError for parameters that are prepared already, or a run's other choice of them.

  *Example*: `tfm.generate(spec, prepare(spec, params), prompts, max_new_tokens=64)`
  """
  letters = param_letters(spec)
  same = jax.tree.structure(letters) == jax.tree.structure(params)  # type: ignore[operator]
  if not same:
    raise errors.UserError(
      'prepare: the parameters are not those of the model. Wanted what init(spec, key) or load(path) gives; '
      'parameters that are prepared already need it no more.'
    )
  laid = jax.tree.map_with_path(lambda path, w, axes: _laid(spec, path, w, axes, int8), params, letters)
  return _unstacked(spec, laid)


def prepared(params: Params) -> bool:
  """Whether `prepare` has made them."""
  return isinstance(params.get('segment_0'), tuple)


def _unstacked(stack: Model | Encoder, params: Params) -> Params:
  laid = dict(params)
  for i, segment in enumerate(stack.segments):
    own = _joined(segment, params[f'segment_{i}'])
    laid[f'segment_{i}'] = (own,) * segment.repeats if segment.shared else _unstack(own)
  if isinstance(stack, Encoder):
    return laid
  if stack.encoder is not None:
    laid['encoder'] = _unstacked(stack.encoder, params['encoder'])
  if stack.mtp is not None:
    laid['mtp'] = {name: _unstacked(one_layer(stack), own) for name, own in params['mtp'].items()}
  return laid


def _joined(segment: Segment, params: Params) -> Params:
  """The layers of a segment, in which projections of one input are laid out as one."""
  laid = dict(params)
  for j, block in enumerate(segment.pattern):
    name = f'block_{j}'
    for part, groups in (('mixer', block.mixer.joined), ('ffn', block.ffn.joined)):
      for group in groups:
        laid[name] = laid[name] | {part: _as_one(laid[name][part], group, segment.shared)}
  return laid


def _as_one(params: Params, names: tuple[str, ...], shared: bool) -> Params:
  kernels = [params[name]['kernel'] for name in names]
  join = type(kernels[0]).joined
  whole = jax.jit(join if shared else jax.vmap(join))(kernels)
  rest = {name: {n: p for n, p in params[name].items() if n != 'kernel'} for name in names}
  rest[names[0]]['kernel'] = Joined(whole, tuple(kernel.out for kernel in kernels))
  return params | rest


def _laid(spec: Model, path: Any, w: jax.Array, letters: str, int8: bool) -> Any:
  names = [p.key for p in path]
  if names[-2:] == ['embed', 'table']:
    reader = spec.source if names[0] == 'encoder' else spec
    return _table(w) if int8 and spec.embed.rows is None and reader.embed.rows is None else w
  # Of experts only those that are chosen are read, one after the other, where they stand.
  if names[-1] != 'kernel' or 'E' in letters:
    return w
  axes, stacked = letters.removeprefix('L'), letters.startswith('L')
  lay = lambda w: (quantize if int8 else Rows.of)(w, n_inputs(axes))
  return jax.jit(jax.vmap(lay) if stacked else lay)(w)


def _table(w_VD: jax.Array) -> Any:
  return jax.jit(lambda w: quantize(jnp.swapaxes(w, 0, 1), 1))(w_VD)
