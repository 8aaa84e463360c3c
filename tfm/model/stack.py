"""The layers of a tower as pure functions over parameter trees: scanned or unrolled, from the same
parameters.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple
import zlib

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import stacked
from tfm.model.lending import lends
from tfm.model.loops.base import Layers, Loop
from tfm.model.loops.layers import layers as layer_by_layer
from tfm.model.loops.reversible import reversible
from tfm.model.loops.scan import scan, unroll
from tfm.model.spec import (
  Model,
  Segment,
  Tower,
  blocks,
  common,
  depth,
  shared_head_dim,
  shared_heads,
  shared_value_dim,
)
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.embed.base import Outputs
from tfm.parts.relative.base import Hooks, Relative
from tfm.parts.tokeninfo import TokenInfo, with_grid

Params = dict[str, Any]

LOOPS: dict[str, Loop] = {'scan': scan, 'unroll': unroll}


def tower_dims(model: Model, tower: Tower, run: Run) -> Dims:
  """Return the sizes that the parts of a tower are made with; `tower` is complete (`Model.tower`)."""
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
  """Return the key of a named part, which does not depend on the other parts there are."""
  return jax.random.fold_in(key, zlib.crc32(name.encode()))


def init_stack(key: jax.Array, tower: Tower, dims: Dims, outputs: Outputs) -> Params:
  """Return boxed parameters of the tower's segments, positions, shared relative position and final
  norm.
  """
  one = jnp.zeros((1, 1), jnp.int32)
  info, dtype = with_grid(TokenInfo(one, one + 1), (1, 1)), dims.run.precision.dtype('compute')
  params: Params = {}
  width = dims.d_model
  cond_BD = (
    jnp.zeros((1, width), dtype) if tower.embed is not None and tower.embed.conditions else None
  )
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
  for name, module, args in _own(tower, dims, info, width, cond_BD):
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
  side = 1 << 4  # divisible by every usual factor
  x_BTD = jnp.zeros((1, side * side, width), dims.run.precision.dtype('compute'))
  ones = jnp.ones((1, side * side), jnp.int32)
  module = segment.resample.make(dims.replace(d_model=segment.d_model or width), width)
  return module.init(key, x_BTD, TokenInfo(ones, ones), (side, side))['params']


def _own(tower: Tower, dims: Dims, info: TokenInfo, last_width: int, cond_BD: jax.Array | None):
  """Yield the modules of a tower beside its segments: name, module, and (method, *arguments) to
  start parameters.
  """
  dtype = dims.run.precision.dtype('compute')
  relative, residual = tower.shared_relative.make(dims), tower.residual.make(dims)
  absolute, foot_BTR = tower.absolute.make(dims.foot), jnp.zeros((1, 1, dims.foot.d_model), dtype)
  if isinstance(relative, nn.Module):
    head_BTNH = jnp.zeros((1, 1, dims.heads, dims.head_dim), dtype)
    ways = {
      'contextual': ('content', head_BTNH, head_BTNH, info, info),
      'placed': ('product', info, info),
    }
    used = next((way for name, way in ways.items() if getattr(tower.shared_relative, name)), None)
    yield 'shared_relative', relative, used or ('bias', dims.heads, info, info)
  if (shared := common(tower)) is not None:
    yield 'common', shared.make(dims), (None,)
  if isinstance(absolute, nn.Module):
    yield 'absolute', absolute, (None, foot_BTR, info.positions)
  if isinstance(residual, nn.Module):
    yield 'residual', residual, (None,)
  if ends_with_norm(tower):
    assert tower.norm is not None
    x_BTD = jnp.zeros((1, 1, last_width), dtype)
    given = (x_BTD, cond_BD) if tower.norm.conditioned else (x_BTD,)
    yield 'norm', tower.norm.make(dims.replace(d_model=last_width)), (None, *given)


def ends_with_norm(tower: Tower) -> bool:
  """Return whether a final norm follows the layers (or the embeddings, if there are no layers)."""
  if tower.norm is None:
    return False
  return not tower.segments or tower.segments[-1].pattern[-1].residual_layout.final_norm


def call(piece: Any, params: Params, name: str, *args: Any, method: str | None = None) -> Any:
  """Call a part: with its parameters if it is a module, else as it is."""
  if isinstance(piece, nn.Module):
    return piece.apply({'params': params.get(name, {})}, *args, method=method)
  return getattr(piece, method or '__call__')(*args)


def add_positions(
  tower: Tower, dims: Dims, params: Params, x_BTD: jax.Array, info: TokenInfo
) -> jax.Array:
  """Return the embeddings with absolute positions added."""
  return call(tower.absolute.make(dims.foot), params, 'absolute', x_BTD, info.positions)


def _in_order(captured: Params, pattern: int, repeats: int) -> tuple[jax.Array, ...]:
  """Return what the blocks of a segment have captured, stacked over repeats, in the order of the
  layers.
  """
  blocks = [jax.tree.leaves(captured.get(f'block_{j}', {})) for j in range(pattern)]
  return tuple(leaf[i] for i in range(repeats) for leaves in blocks for leaf in leaves)


class Owned(Hooks):
  """A relative position with the parameters that the tower keeps for it."""

  def __init__(self, piece: Any, params: Params):
    self.ask = functools.partial(call, piece, params, 'shared_relative')

  def places(self, info):
    return self.ask(info, method='places')

  def rotate(self, x_BTNH, pos_BT):
    return self.ask(x_BTNH, pos_BT, method='rotate')

  def queries(self, q_BTNH, pos_BT):
    return self.ask(q_BTNH, pos_BT, method='queries')

  def bias(self, n_heads, q, k):
    return self.ask(n_heads, q, k, method='bias')

  def product(self, q, k):
    return self.ask(q, k, method='product')

  def content(self, q_BTNH, k_BSKH, q, k):
    return self.ask(q_BTNH, k_BSKH, q, k, method='content')

  def added(self):
    return self.ask(method='added')


class Passed(NamedTuple):
  """The result of the layers of a tower.

  Attributes:
    x_BTD: the last hidden state.
    trunk_BTD: what entered the last segment.
    last_BTD: the output of the last layer, before the final norm.
    info, grid: those of `x_BTD`, which differ from those of the input if a segment resampled.
    caches: the caches by segment, or None.
    aux: a scalar to add to the loss.
    load: what parts have sown into the collection 'load', at the paths of the tower's parameters.
    captured: activations by name, one per layer.
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
) -> Passed:  # fmt: skip
  """Run all segments and the final norm. `key` turns dropout on; `capture` are names of
  `tfm/parts/capture.py`.
  """
  ctx = _with_shared(tower, dims, params, ctx)
  x_BTD, beside = ctx.residual.start(x_BTD)
  carry = (x_BTD, beside, jnp.zeros((), jnp.float32))
  kept, loads, first, trunk_BTD = [], dict[str, Any](), 0, x_BTD
  captured: dict[str, tuple[jax.Array, ...]] = dict.fromkeys(capture, ())
  for i, segment in enumerate(tower.segments):
    if segment.resample is not None:
      carry, dims, ctx = _resampled(segment, dims, params, f'segment_{i}_resample', carry, ctx)
    trunk_BTD = ctx.residual.end(*carry[:2])
    keys_L = (
      None if key is None else jax.random.split(named_key(key, f'segment_{i}'), segment.repeats)
    )
    cache = None if caches is None else caches[i]
    carry, (cache, sown) = _segment(
      tower, segment, dims, params[f'segment_{i}'], ctx, carry, cache, keys_L, first, capture
    )
    ctx = dataclasses.replace(
      ctx, lent={**ctx.lent, **jax.tree.map(lambda a: a[-1], sown.get('lent', {}))}
    )
    first += len(segment.pattern) * segment.repeats
    kept.append(cache)
    for what in capture:
      captured[what] += _in_order(sown.get(what, {}), len(segment.pattern), segment.repeats)
    load = sown.get('load', {})
    load = jax.tree.map(lambda x: jnp.sum(x, 0), load) if segment.shared else load
    loads |= {f'segment_{i}': load} if load else {}
  x_BTD = last_BTD = ctx.residual.end(*carry[:2])
  if ends_with_norm(tower):
    assert tower.norm is not None
    given = (x_BTD, ctx.cond_BD) if tower.norm.conditioned else (x_BTD,)
    x_BTD = call(tower.norm.make(dims), params, 'norm', *given)
  caches = None if caches is None else kept
  return Passed(x_BTD, trunk_BTD, last_BTD, ctx.info, ctx.grid, caches, carry[2], loads, captured)


def _with_shared(tower: Tower, dims: Dims, params: Params, ctx: Ctx) -> Ctx:
  """Return the context with what all layers of the tower share: relative position, common module,
  residual kind.
  """
  if tower.shared_relative != Relative():
    owned = Owned(tower.shared_relative.make(dims), params)
    ctx = dataclasses.replace(ctx, shared=(tower.shared_relative, owned))
  if (shared := common(tower)) is not None:
    ctx = dataclasses.replace(ctx, common=call(shared.make(dims), params, 'common'))
  return dataclasses.replace(ctx, residual=call(tower.residual.make(dims), params, 'residual'))


def _resampled(
  segment: Segment, dims: Dims, params: Params, name: str, carry: Any, ctx: Ctx
) -> tuple[Any, Dims, Ctx]:
  """Return the carry, sizes and context on entry to a segment that changes the length of the
  sequence.
  """
  assert segment.resample is not None
  new = dims.replace(d_model=segment.d_model or dims.d_model)
  module = segment.resample.make(new, dims.d_model)
  x_BTD, info, grid = call(module, params, name, ctx.residual.end(*carry[:2]), ctx.info, ctx.grid)
  x_BTD, beside = ctx.residual.start(x_BTD)
  return (x_BTD, beside, carry[2]), new, dataclasses.replace(ctx, info=info, grid=grid)


def _segment(
  tower: Tower, segment: Segment, dims: Dims, params: Any, ctx: Ctx, carry: Any, caches: Any,
  keys_L: Any, first: int,
  capture: tuple[str, ...],
) -> tuple[Any, tuple[Any, Params]]:  # fmt: skip
  """Run the repeats of a segment; `first` is the index of its first layer in the tower."""
  unit, own, once = segment.unit.make(segment.pattern, dims), params, None
  if segment.shared and not isinstance(own, tuple):
    own, once = None, own
    if tower.residual.reversible:  # its backward pass needs the gradient of each repeat by itself
      own, once = (
        jax.tree.map(lambda a: jnp.broadcast_to(a[None], (segment.repeats, *a.shape)), once),
        None,
      )

  def body(carry, layer):
    x_BTD, beside, aux = carry
    p, cache, k, number = layer
    p = p if once is None else once
    lent = dict(ctx.lent)
    mine, rngs = (
      dataclasses.replace(ctx, layer=number, lent=lent),
      {} if k is None else {'dropout': k},
    )
    out, sown = unit.apply(
      {'params': p}, x_BTD, beside, mine, cache, rngs=rngs, mutable=['load', *capture]
    )
    x_BTD, beside, cache, a = out
    new = {name: lent[name] for name in lends(segment)}
    return (x_BTD, beside, aux + a), (cache, {**sown, 'lent': new} if new else sown)

  number_L = first + len(segment.pattern) * jnp.arange(segment.repeats, dtype=jnp.int32)
  loop: Callable[..., Any] = LOOPS[dims.run.loop]
  if isinstance(own, tuple):
    loop = layer_by_layer
  elif tower.residual.reversible and caches is None:
    loop = reversible
  return loop(body, unit, ctx, carry, Layers(own, caches, keys_L, number_L))
