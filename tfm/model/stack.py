"""The layers of a tower as pure functions of parameter trees, scanned or unrolled."""

from collections.abc import Callable, Iterator
import dataclasses
import functools
from typing import Any, NamedTuple
import zlib

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import split_axes, stacked
from tfm.model.lending import lends
from tfm.model.loops.base import Layers, Loop
from tfm.model.loops.layers import layers as layer_by_layer
from tfm.model.loops.pipeline import pipeline
from tfm.model.loops.reversible import reversible
from tfm.model.loops.scan import scan, unroll
from tfm.model.spec import (
  Model,
  Segment,
  Tower,
  blocks,
  depth,
  shared_head_dim,
  shared_heads,
  shared_module,
  shared_value_dim,
)
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.embed.base import Outputs
from tfm.parts.relative.base import Hooks, Relative
from tfm.parts.tokeninfo import TokenInfo, with_grid

Params = dict[str, Any]

LOOPS: dict[str, Loop] = {'scan': scan, 'unroll': unroll}


def tower_dims(model: Model, tower: Tower, run: Run) -> Dims:
  """Return the sizes that the parts of a tower are made with.

  Args:
    model: The model.
    tower: A complete tower, from `Model.tower`.
    run: Kernels, precision and loops.

  Returns:
    The sizes.
  """
  assert tower.embed is not None
  width = tower.d_model or 0
  causal = all(m.causal for b in blocks(tower) for m in b.mixers)
  return Dims(
    width, depth(tower), model.init, run, heads=shared_heads(tower),
    head_dim=shared_head_dim(tower),
    value_dim=shared_value_dim(tower), causal=causal, d_embed=tower.embed.width or width,
    d_table=getattr(tower.embed.token_embed, 'dim', None) or 0, vocab=tower.vocab,
    adapter=model.adapter,
  )  # fmt: skip


def named_key(key: jax.Array, name: str) -> jax.Array:
  """Return the random key of a named part, which does not depend on the other parts."""
  return jax.random.fold_in(key, zlib.crc32(name.encode()))


def init_stack(key: jax.Array, tower: Tower, dims: Dims, outputs: Outputs) -> Params:
  """Return boxed parameters of a tower, except its input layer and heads.

  Args:
    key: A random key.
    tower: A complete tower.
    dims: Its sizes.
    outputs: Outputs of the towers that it reads, for their widths.

  Returns:
    Parameters by name: segments, positions, shared relative position, residual and final norm.
  """
  one = jnp.zeros((1, 1), jnp.int32)
  info, dtype = with_grid(TokenInfo(one, one + 1), (1, 1)), dims.run.precision.dtype('compute')
  params: Params = {}
  width = dims.d_model
  cond_BD = None
  if tower.embed is not None and tower.embed.conditions:
    cond_BD = jnp.zeros((1, width), dtype)
  for i, segment in enumerate(tower.segments):
    if segment.resample is not None:
      name = f'segment_{i}_resample'
      params[name] = _init_resample(named_key(key, name), segment, dims, width)
    width = segment.d_model or width
    x_BTD, ctx = jnp.zeros((1, 1, width), dtype), Ctx(info, outputs, cond_BD=cond_BD)
    unit = segment.unit.make(segment.pattern, dims.replace(d_model=width))
    init_one = functools.partial(_init_repeat, unit, tower, dims.replace(d_model=width), x_BTD, ctx)
    if segment.shared:
      params[f'segment_{i}'] = init_one(named_key(key, f'segment_{i}'))
      continue
    keys_L = jax.random.split(named_key(key, f'segment_{i}'), segment.repeats)
    params[f'segment_{i}'] = stacked(jax.lax.map(init_one, keys_L))
  for name, module, args in _tower_modules(tower, dims, info, width, cond_BD):
    variables = module.init(named_key(key, name), *args[1:], method=args[0])
    params |= {name: variables['params']} if 'params' in variables else {}
  return params


def _init_repeat(
  unit: Any, tower: Tower, dims: Dims, x_BTD: jax.Array, ctx: Ctx, key: jax.Array
) -> Params:
  """Return boxed parameters of one repeat of a segment."""
  beside: Any = ()
  if tower.residual.in_blocks:
    residual, _ = tower.residual.make(dims).init_with_output(key)
    x_BTD, beside = residual.start(x_BTD)
    ctx = dataclasses.replace(ctx, residual=residual)
  return unit.init(key, x_BTD, beside, dataclasses.replace(ctx, lent={}), None)['params']


def _init_resample(key: jax.Array, segment: Segment, dims: Dims, width: int) -> Params:
  assert segment.resample is not None
  side = 16  # divisible by every usual factor
  x_BTD = jnp.zeros((1, side * side, width), dims.run.precision.dtype('compute'))
  ones = jnp.ones((1, side * side), jnp.int32)
  module = segment.resample.make(dims.replace(d_model=segment.d_model or width), width)
  return module.init(key, x_BTD, TokenInfo(ones, ones), (side, side))['params']


def _tower_modules(
  tower: Tower, dims: Dims, info: TokenInfo, last_width: int, cond_BD: jax.Array | None
) -> Iterator[tuple[str, nn.Module, tuple[Any, ...]]]:
  """Yield (name, module, (method, *arguments) of `init`) of the modules outside the segments."""
  dtype = dims.run.precision.dtype('compute')
  relative, residual = tower.shared_relative.make(dims), tower.residual.make(dims)
  absolute, foot_BTR = tower.absolute.make(dims.foot), jnp.zeros((1, 1, dims.foot.d_model), dtype)
  if isinstance(relative, nn.Module):
    head_BTNH = jnp.zeros((1, 1, dims.heads, dims.head_dim), dtype)
    init: tuple[Any, ...] = ('bias', dims.heads, info, info)
    if tower.shared_relative.contextual:
      init = ('content', head_BTNH, head_BTNH, info, info)
    elif tower.shared_relative.placed:
      init = ('product', info, info)
    yield 'shared_relative', relative, init
  if (shared := shared_module(tower)) is not None:
    yield 'common', shared.make(dims), (None,)
  if isinstance(absolute, nn.Module):
    yield 'absolute', absolute, (None, foot_BTR, info.positions)
  if isinstance(residual, nn.Module):
    yield 'residual', residual, (None,)
  if ends_with_norm(tower):
    assert tower.norm is not None
    x_BTD = jnp.zeros((1, 1, last_width), dtype)
    inputs = (x_BTD, cond_BD) if tower.norm.conditioned else (x_BTD,)
    yield 'norm', tower.norm.make(dims.replace(d_model=last_width)), (None, *inputs)


def ends_with_norm(tower: Tower) -> bool:
  """Return whether a final norm follows the layers (or the embeddings, if there are no layers)."""
  if tower.norm is None:
    return False
  return not tower.segments or tower.segments[-1].pattern[-1].residual_layout.final_norm


def call(part: Any, params: Params, name: str, *args: Any, method: str | None = None) -> Any:
  """Call a part, with its parameters if it is a module.

  Args:
    part: A linen module, or a part without parameters.
    params: Parameters by name.
    name: The name of the part's parameters.
    *args: Arguments of the call.
    method: The method to call. None: `__call__`.

  Returns:
    The result of the call.
  """
  if isinstance(part, nn.Module):
    return part.apply({'params': params.get(name, {})}, *args, method=method)
  return getattr(part, method or '__call__')(*args)


def add_positions(
  tower: Tower, dims: Dims, params: Params, x_BTD: jax.Array, info: TokenInfo
) -> jax.Array:
  """Return the embeddings with absolute positions added.

  Args:
    tower: A complete tower.
    dims: Its sizes.
    params: Its parameters.
    x_BTD: The embeddings.
    info: Positions of the tokens.

  Returns:
    `[B, T, D]`.
  """
  absolute = tower.absolute.make(dims.foot)
  x: jax.Array = call(absolute, params, 'absolute', x_BTD, info.positions)
  return x


def _in_layer_order(captured: Params, pattern: int, repeats: int) -> tuple[jax.Array, ...]:
  """Return the activations captured in a segment, stacked over repeats, in layer order."""
  blocks = [jax.tree.leaves(captured.get(f'block_{j}', {})) for j in range(pattern)]
  return tuple(leaf[i] for i in range(repeats) for leaves in blocks for leaf in leaves)


class BoundRelative(Hooks):
  """A shared relative position bound to its parameters."""

  def __init__(self, part: Any, params: Params):
    self._call = functools.partial(call, part, params, 'shared_relative')

  def places(self, info: TokenInfo) -> Any:
    return self._call(info, method='places')

  def rotate(self, x_BTNH: jax.Array, pos_BT: jax.Array) -> Any:
    return self._call(x_BTNH, pos_BT, method='rotate')

  def queries(self, q_BTNH: jax.Array, pos_BT: jax.Array) -> Any:
    return self._call(q_BTNH, pos_BT, method='queries')

  def bias(self, n_heads: int, q: TokenInfo, k: TokenInfo) -> Any:
    return self._call(n_heads, q, k, method='bias')

  def product(self, q: TokenInfo, k: TokenInfo) -> Any:
    return self._call(q, k, method='product')

  def content(self, q_BTNH: jax.Array, k_BSKH: jax.Array, q: TokenInfo, k: TokenInfo) -> Any:
    return self._call(q_BTNH, k_BSKH, q, k, method='content')

  def added(self) -> Any:
    return self._call(method='added')


class StackOutput(NamedTuple):
  """The result of the layers of a tower.

  Attributes:
    x_BTD: The last hidden state, after the final norm.
    trunk_BTD: The input of the last segment.
    last_BTD: The output of the last layer, before the final norm.
    info: The token info of `x_BTD`, which differs from the input's if a segment resampled.
    grid: The image grid of `x_BTD`, or None.
    caches: The caches by segment, or None.
    aux: A scalar to add to the loss.
    load: Expert loads, at the paths of the tower's parameters.
    captured: Activations by name, one per layer.
  """

  x_BTD: jax.Array
  trunk_BTD: jax.Array
  last_BTD: jax.Array
  info: TokenInfo
  grid: tuple[int, int] | None
  caches: Any
  aux: jax.Array
  load: Params
  captured: dict[str, tuple[jax.Array, ...]]


def apply_stack(
  tower: Tower, dims: Dims, params: Params, x_BTD: jax.Array, ctx: Ctx, caches: Any,
  key: jax.Array | None,
  capture: tuple[str, ...] = (),
) -> StackOutput:  # fmt: skip
  """Run all segments and the final norm.

  Args:
    tower: A complete tower.
    dims: Its sizes.
    params: Its parameters.
    x_BTD: The embedded inputs.
    ctx: Token info, and what else the layers read.
    caches: The caches by segment, or None.
    key: Turns dropout on. None: evaluation.
    capture: Names of activations to return (`tfm/parts/capture.py`).

  Returns:
    The outputs and new caches.
  """
  ctx = _with_shared(tower, dims, params, ctx)
  x_BTD, extra = ctx.residual.start(x_BTD)
  carry = (x_BTD, extra, jnp.zeros((), jnp.float32))
  new_caches, loads, first, trunk_BTD = list[Any](), dict[str, Any](), 0, x_BTD
  captured: dict[str, tuple[jax.Array, ...]] = dict.fromkeys(capture, ())
  for i, segment in enumerate(tower.segments):
    if segment.resample is not None:
      carry, dims, ctx = _resampled(segment, dims, params, f'segment_{i}_resample', carry, ctx)
    trunk_BTD = ctx.residual.end(*carry[:2])
    keys_L = None
    if key is not None:
      keys_L = jax.random.split(named_key(key, f'segment_{i}'), segment.repeats)
    cache = None if caches is None else caches[i]
    carry, (cache, sown) = _segment(
      tower, segment, dims, params[f'segment_{i}'], ctx, carry, cache, keys_L, first, capture
    )
    ctx = dataclasses.replace(
      ctx, lent={**ctx.lent, **jax.tree.map(lambda a: a[-1], sown.get('lent', {}))}
    )
    first += len(segment.pattern) * segment.repeats
    new_caches.append(cache)
    for name in capture:
      activations = sown.get(name, {})
      captured[name] += _in_layer_order(activations, len(segment.pattern), segment.repeats)
    load = sown.get('load', {})
    load = jax.tree.map(lambda x: jnp.sum(x, 0), load) if segment.shared else load
    loads |= {f'segment_{i}': load} if load else {}
  x_BTD = last_BTD = ctx.residual.end(*carry[:2])
  if ends_with_norm(tower):
    assert tower.norm is not None
    inputs = (x_BTD, ctx.cond_BD) if tower.norm.conditioned else (x_BTD,)
    x_BTD = call(tower.norm.make(dims), params, 'norm', *inputs)
  caches = None if caches is None else new_caches
  return StackOutput(
    x_BTD, trunk_BTD, last_BTD, ctx.info, ctx.grid, caches, carry[2], loads, captured
  )


def _with_shared(tower: Tower, dims: Dims, params: Params, ctx: Ctx) -> Ctx:
  """Return the context with the relative position, module and residual kind of all layers."""
  if tower.shared_relative != Relative():
    relative = BoundRelative(tower.shared_relative.make(dims), params)
    ctx = dataclasses.replace(ctx, shared=(tower.shared_relative, relative))
  if (shared := shared_module(tower)) is not None:
    ctx = dataclasses.replace(ctx, common=call(shared.make(dims), params, 'common'))
  return dataclasses.replace(ctx, residual=call(tower.residual.make(dims), params, 'residual'))


def _resampled(
  segment: Segment, dims: Dims, params: Params, name: str, carry: Any, ctx: Ctx
) -> tuple[Any, Dims, Ctx]:
  """Return the carry, sizes and context on entry to a segment that resamples."""
  assert segment.resample is not None
  new = dims.replace(d_model=segment.d_model or dims.d_model)
  module = segment.resample.make(new, dims.d_model)
  x_BTD, info, grid = call(module, params, name, ctx.residual.end(*carry[:2]), ctx.info, ctx.grid)
  x_BTD, extra = ctx.residual.start(x_BTD)
  return (x_BTD, extra, carry[2]), new, dataclasses.replace(ctx, info=info, grid=grid)


def _segment(
  tower: Tower, segment: Segment, dims: Dims, params: Any, ctx: Ctx, carry: Any, caches: Any,
  keys_L: Any, first: int,
  capture: tuple[str, ...],
) -> tuple[Any, tuple[Any, Params]]:  # fmt: skip
  """Run the repeats of a segment; `first` is the index of its first layer in the tower."""
  unit, per_repeat, shared = segment.unit.make(segment.pattern, dims), params, None
  if segment.shared and not isinstance(params, tuple):
    if tower.residual.reversible:  # the backward pass returns a gradient per repeat
      repeat = lambda a: jnp.broadcast_to(a[None], (segment.repeats, *a.shape))
      per_repeat = jax.tree.map(repeat, params)
    else:
      per_repeat, shared = None, params

  def body(carry: Any, layer: Any, ctx: Ctx = ctx) -> tuple[Any, tuple[Any, Params]]:
    x_BTD, extra, aux = carry
    p, cache, key, number = layer
    p = p if shared is None else shared
    lent = dict(ctx.lent)
    own_ctx = dataclasses.replace(ctx, layer=number, lent=lent)
    rngs = {} if key is None else {'dropout': key}
    out, sown = unit.apply(
      {'params': p}, x_BTD, extra, own_ctx, cache, rngs=rngs, mutable=['load', *capture]
    )
    x_BTD, extra, cache, block_aux = out
    new = {name: lent[name] for name in lends(segment)}
    return (x_BTD, extra, aux + block_aux), (cache, {**sown, 'lent': new} if new else sown)

  number_L = first + len(segment.pattern) * jnp.arange(segment.repeats, dtype=jnp.int32)
  loop: Callable[..., Any] = LOOPS[dims.run.loop]
  if isinstance(per_repeat, tuple):
    loop = layer_by_layer
  elif split_axes('L'):
    loop = pipeline
  elif tower.residual.reversible and caches is None:
    loop = reversible
  return loop(body, unit, ctx, carry, Layers(per_repeat, caches, keys_L, number_L))
