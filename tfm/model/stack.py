"""A stack of segments as pure functions over parameter trees: scanned or unrolled, from the same parameters."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple
import zlib

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import stacked
from tfm.model.block import Unit
from tfm.model.remat import remat
from tfm.model.spec import Encoder, Model, blocks, common, depth, shared_head_dim, shared_heads, shared_value_dim
from tfm.model.undo import scan_undone
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.relative.base import Hooks, Relative
from tfm.parts.tokeninfo import TokenInfo

Params = dict[str, Any]


def stack_dims(spec: Model, stack: Model | Encoder, run: Run) -> Dims:
  """What the parts of a stack are told while they are built."""
  causal = all(m.causal for b in blocks(stack) for m in b.mixers)
  width = spec.d_model if spec.embed.back else spec.embed.dim or spec.d_model
  return Dims(
    spec.d_model, depth(stack), spec.init, run, heads=shared_heads(stack),
    head_dim=shared_head_dim(stack, spec.d_model), value_dim=shared_value_dim(stack, spec.d_model), causal=causal,
    d_embed=width, adapter=spec.adapter,
  )  # fmt: skip


def named_key(key: jax.Array, name: str) -> jax.Array:
  """The key of a named piece: independent of which other pieces there are."""
  return jax.random.fold_in(key, zlib.crc32(name.encode()))


def init_stack(
  key: jax.Array, stack: Model | Encoder, dims: Dims, memory: tuple[jax.Array, TokenInfo] | None
) -> Params:
  """Boxed parameters of the stack's segments, positions, shared relative position and final norm."""
  one = jnp.zeros((1, 1), jnp.int32)
  info, x_BTD = TokenInfo(one, one + 1), jnp.zeros((1, 1, dims.d_model), dims.run.precision.dtype('compute'))
  ctx = Ctx(info, memory)
  params: Params = {}
  for i, segment in enumerate(stack.segments):
    unit = Unit(segment.pattern, dims)
    init_one = lambda k, unit=unit: unit.init(k, x_BTD, (), ctx, None)['params']
    if segment.shared:
      params[f'segment_{i}'] = init_one(named_key(key, f'segment_{i}'))
      continue
    keys_L = jax.random.split(named_key(key, f'segment_{i}'), segment.repeats)
    params[f'segment_{i}'] = stacked(jax.lax.map(init_one, keys_L))
  for name, module, args in _own(stack, dims, x_BTD, info):
    variables = module.init(named_key(key, name), *args[1:], method=args[0])
    params |= {name: variables['params']} if 'params' in variables else {}
  return params


def _own(stack, dims, x_BTD, info):
  """The modules a stack owns beside its segments: name, module, and (method, *arguments) to start its parameters."""
  relative, residual = stack.shared_relative.make(dims), stack.residual.make(dims)
  absolute, foot_BTR = stack.absolute.make(dims.foot), jnp.zeros((1, 1, dims.foot.d_model), x_BTD.dtype)
  if isinstance(relative, nn.Module):
    head_BTNH = jnp.zeros((1, 1, dims.heads, dims.head_dim), x_BTD.dtype)
    ways = {'contextual': ('content', head_BTNH, head_BTNH, info, info), 'placed': ('product', info, info)}
    asked = next((way for name, way in ways.items() if getattr(stack.shared_relative, name)), None)
    yield 'shared_relative', relative, asked or ('bias', dims.heads, info, info)
  if (shared := common(stack)) is not None:
    yield 'common', shared.make(dims), (None,)
  if isinstance(absolute, nn.Module):
    yield 'absolute', absolute, (None, foot_BTR, info.positions)
  if isinstance(residual, nn.Module):
    yield 'residual', residual, (None,)
  if ends_with_norm(stack):
    yield 'norm', stack.norm.make(dims), (None, x_BTD)


def ends_with_norm(stack: Model | Encoder) -> bool:
  """Whether the last block leaves the residual stream unnormalised."""
  return stack.segments[-1].pattern[-1].wiring.final_norm


def call(piece: Any, params: Params, name: str, *args: Any, method: str | None = None) -> Any:
  """Calls a piece: with its parameters if it is a module, else as it is."""
  if isinstance(piece, nn.Module):
    return piece.apply({'params': params.get(name, {})}, *args, method=method)
  return getattr(piece, method or '__call__')(*args)


def add_positions(stack: Model | Encoder, dims: Dims, params: Params, x_BTD: jax.Array, info: TokenInfo) -> jax.Array:
  """The foot of a stack: embeddings with absolute positions added."""
  return call(stack.absolute.make(dims.foot), params, 'absolute', x_BTD, info.positions)


def unstack(tree_L: Any) -> tuple[Any, ...]:
  """The layers of a tree whose arrays have them on their leading axis, one tree each."""
  length = len(jax.tree.leaves(tree_L)[0])
  return tuple(jax.tree.map(lambda a, i=i: a[i], tree_L) for i in range(length))


def _one_by_one(body: Callable[..., Any], carry: Any, layers: tuple[Any, ...]) -> tuple[Any, tuple[Any, Any]]:
  """The scan of parameters laid out a layer at a time (`tfm.generate.prepare`); the caches come back that way too."""
  each = [x if isinstance(x, tuple) else (None,) * len(layers[0]) if x is None else unstack(x) for x in layers]
  kept, loads = [], []
  for layer in zip(*each, strict=True):
    carry, (cache, load) = body(carry, layer)
    kept.append(cache)
    loads.append(load)
  return carry, (tuple(kept), jax.tree.map(lambda *x: jnp.stack(x), *loads))


def _in_order(said: Params, pattern: int, repeats: int) -> tuple[jax.Array, ...]:
  """What the blocks of a segment have said, stacked over repeats, one after the other as they stand."""
  blocks = [jax.tree.leaves(said.get(f'block_{j}', {})) for j in range(pattern)]
  return tuple(leaf[i] for i in range(repeats) for leaves in blocks for leaf in leaves)


class Owned(Hooks):
  """A relative position with the parameters that the stack keeps for it."""

  def __init__(self, piece: Any, params: Params):
    self.ask = functools.partial(call, piece, params, 'shared_relative')

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
  """What comes out of a stack: x_BTD, `trunk_BTD` (what entered its last segment), the caches, and a loss to add.

  `load` is a tree of what parts have sown into the collection of that name, at the paths of parameters of the stack.
  `told` is what was asked for, a layer each.
  """

  x_BTD: jax.Array
  trunk_BTD: jax.Array
  caches: Any
  aux: jax.Array
  load: Params
  told: dict[str, tuple[jax.Array, ...]]


def apply_stack(
  stack: Model | Encoder, dims: Dims, params: Params, x_BTD: jax.Array, ctx: Ctx, caches: Any, key: jax.Array | None,
  asked: tuple[str, ...] = (),
) -> Passed:  # fmt: skip
  """x_BTD through all segments and the final norm. `key` turns dropout on; `asked` are words of `parts/tell.py`."""
  if stack.shared_relative != Relative():
    owned = Owned(stack.shared_relative.make(dims), params)
    ctx = dataclasses.replace(ctx, shared=(stack.shared_relative, owned))
  if (shared := common(stack)) is not None:
    ctx = dataclasses.replace(ctx, common=call(shared.make(dims), params, 'common'))
  residual = call(stack.residual.make(dims), params, 'residual')
  ctx = dataclasses.replace(ctx, residual=residual)
  x_BTD, beside = residual.start(x_BTD)
  kept, aux, first = [], jnp.zeros((), jnp.float32), 0
  loads: Params = {}
  told: dict[str, tuple[jax.Array, ...]] = dict.fromkeys(asked, ())
  trunk_BTD = x_BTD
  for i, segment in enumerate(stack.segments):
    unit, trunk_BTD = Unit(segment.pattern, dims), residual.end(x_BTD, beside)
    number_L = first + len(segment.pattern) * jnp.arange(segment.repeats, dtype=jnp.int32)
    first += len(segment.pattern) * segment.repeats
    keys_L = None if key is None else jax.random.split(named_key(key, f'segment_{i}'), segment.repeats)

    own, once = params[f'segment_{i}'], None
    if segment.shared and not isinstance(own, tuple):
      own, once = None, own
      if stack.residual.undone:  # its backward pass asks each repeat for the gradient of its own
        own, once = jax.tree.map(lambda a, n=segment.repeats: jnp.broadcast_to(a[None], (n, *a.shape)), once), None

    def body(carry, layer, unit=unit, once=once):
      x_BTD, beside, aux = carry
      p, cache, k, number = layer
      p = p if once is None else once
      own, rngs = dataclasses.replace(ctx, layer=number), {} if k is None else {'dropout': k}
      out, sown = unit.apply({'params': p}, x_BTD, beside, own, cache, rngs=rngs, mutable=['load', *asked])
      x_BTD, beside, cache, a = out
      return (x_BTD, beside, aux + a), (cache, sown)

    layers = (own, None if caches is None else caches[i], keys_L, number_L)
    unroll = segment.repeats if dims.run.loop == 'unroll' else 1
    if isinstance(layers[0], tuple):
      (x_BTD, beside, aux), (cache, sown) = _one_by_one(body, (x_BTD, beside, aux), layers)
    elif stack.residual.undone and caches is None:
      (x_BTD, beside, aux), (cache, sown) = scan_undone(body, unit, ctx, (x_BTD, beside, aux), layers, unroll)
    else:
      (x_BTD, beside, aux), (cache, sown) = jax.lax.scan(
        remat(body, dims.run.remat), (x_BTD, beside, aux), layers, length=segment.repeats, unroll=unroll
      )
    kept.append(cache)
    told = {what: told[what] + _in_order(sown.get(what, {}), len(segment.pattern), segment.repeats) for what in asked}
    load = sown.get('load', {})
    load = jax.tree.map(lambda x: jnp.sum(x, 0), load) if segment.shared else load
    loads |= {f'segment_{i}': load} if load else {}
  x_BTD = residual.end(x_BTD, beside)
  if ends_with_norm(stack):
    x_BTD = call(stack.norm.make(dims), params, 'norm', x_BTD)
  return Passed(x_BTD, trunk_BTD, None if caches is None else kept, aux, loads, told)
