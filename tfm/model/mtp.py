"""Tokens after the next one: the layers of `spec.mtp` in training, and as a draft for speculative
decoding.

Each depth is a small stack of its own, one layer like the model's last, under
`params['mtp']['depth_1']` and so on."""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.model import cache as cache_lib
from tfm.model import inputs as inputs_lib
from tfm.model import stack as stack_lib
from tfm.model.spec import Model, Segment, Tower, blocks
from tfm.model.spec import reads as spec_reads
from tfm.model.stack import Params, named_key
from tfm.parts.cache.base import Cache
from tfm.parts.cache.dense import DenseCache
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.embed.base import Outputs, unpadded
from tfm.parts.head.base import HeadContext


class Ahead(NamedTuple):
  """The last hidden state of each depth, and what a stack passes on besides
  (`tfm.model.stack.Passed`).
  """

  hidden: tuple[jax.Array, ...]
  caches: Any
  aux: jax.Array
  load: Params


def init(spec: Model, key: jax.Array, dims: Dims, outputs: Outputs) -> Params:
  """Boxed parameters of every depth."""
  assert spec.mtp is not None
  x_BTD = jnp.zeros((1, 1, spec.d_model), dims.run.precision.dtype('compute'))
  params: Params = {}
  for k in range(1, spec.mtp.depth + 1):
    own_key = named_key(key, f'depth_{k}')
    own = stack_lib.init_stack(own_key, one_layer(spec), dims, outputs)
    if spec.mtp.chained:
      e_BTR = jnp.zeros((1, 1, dims.foot.d_model), x_BTD.dtype)
      own['join'] = spec.mtp.make(dims).init(named_key(own_key, 'join'), x_BTD, e_BTR)['params']
    else:
      own.pop('norm', None)  # the model's own serves
    params[f'depth_{k}'] = own
  return params


def look_ahead(
  spec: Model,
  dims: Dims,
  params: Params,
  state_BTD: jax.Array,
  ids_BT: jax.Array,
  ctx: Ctx,
  key: jax.Array | None,
) -> Ahead:
  """Every depth over whole rows, `ids_BT` the tokens at the places of `state_BTD` (`apply`'s
  `mtp_state`).

  At the last k places of a document depth k is told tokens that are not its own; nothing before
  them sees that, and the loss leaves them out."""
  assert spec.mtp is not None
  hidden: list[jax.Array] = []
  loads: Params = {}
  aux, h_BTD = jnp.zeros((), jnp.float32), state_BTD
  for k in range(1, spec.mtp.depth + 1):
    ids_BT = shifted(ids_BT)
    own_key = None if key is None else named_key(key, f'mtp_{k}')
    out = _deeper(spec, dims, params, k, h_BTD, ids_BT, ctx, None, own_key)
    hidden, aux = [*hidden, out.x_BTD], aux + out.aux
    loads |= {f'depth_{k}': out.load} if out.load else {}
    h_BTD = out.x_BTD if spec.mtp.chained else state_BTD
  return Ahead(tuple(hidden), None, aux, {'mtp': loads} if loads else {})


def shifted(x_BT: jax.Array) -> jax.Array:
  """Each row's numbers one place earlier, and 0 at the end."""
  return jnp.concatenate([x_BT[:, 1:], jnp.zeros_like(x_BT[:, :1])], 1)


def init_cache(
  spec: Model, batch: int, slots: int, dtype: Any = jnp.float32, kind: Cache = DenseCache()
) -> dict[str, Any]:
  """The memory of the draft: what `tfm.model.cache.init_cache` makes, for the layers of `spec.mtp`.

  It holds as many tokens of a row as the model's own cache has seen, and is cut back alike
  (`cache.rewind`)."""
  depths = dataclasses.replace(spec, segments=one_layer(spec).segments * _mtp(spec).depth)
  return cache_lib.init_cache(depths, batch, slots, dtype, kind=kind)


def greedy(logits_BV: jax.Array, k: int) -> jax.Array:
  """The likeliest token, int32 `[B]`, whatever the depth."""
  del k
  return jnp.argmax(logits_BV, -1).astype(jnp.int32)


def draft(
  spec: Model,
  params: Params,
  cache: dict[str, Any],
  state_BTD: jax.Array,
  next_BT: jax.Array,
  mask_BT: jax.Array | None = None,
  choose: Callable[[jax.Array, int], jax.Array] = greedy,
  run: Run = Run(),
) -> dict[str, Any]:
  """What may come after `next_BT`: a token of each depth, where the model has just read T tokens of
  each row.

  `state_BTD` is what `apply` returned for those as `mtp_state`, `next_BT` the token after each of
  them: the row moved by one, and at its end the model's own choice. `mask_BT` is 0 for padding,
  wherever it stands. `choose(logits_BV, k)` draws the token of depth k, int32 `[B]`. Feed the
  prompt first, then at each turn the tokens that were accepted.

  Returns `tokens` `[B, depth]`, `logits` `[B, depth, V]` (what each was drawn from), `cache`, and
  `state` `[B, 1, D]`: with the last of `tokens` it may go back in as `state_BTD` and `next_BT` for
  one more token, of modules that are chained, and less likely to be accepted.

  A chained depth above 1 remembers the tokens it was told at a row's last places, which were
  drafts: if one is rejected, its memory is not quite what training would have it. That costs
  acceptance only, never exactness; who minds cuts the cache back by depth - 1 more tokens and feeds
  those again.

  *Raises*: UserError if the model has no `mtp`, or an encoder.
  """
  mtp = _mtp(spec)
  B, T = next_BT.shape
  dims = stack_lib.tower_dims(spec, spec, run)
  mask = {} if mask_BT is None else {'attention_mask': mask_BT}
  info = spec.embed.info(mask, (B, T))
  info = info.at(info.positions + cache['next'][:, None])
  if 'prefix' in spec_reads(spec):
    info = info.with_extras(prefix=jnp.zeros(next_BT.shape, bool))
  ctx = Ctx(info, slot=cache['slot'], ordered=True)
  place_BT = jnp.broadcast_to(jnp.arange(T)[None], (B, T))
  last_B1 = jnp.max(jnp.where(info.segment_ids > 0, place_BT, 0), 1)[:, None]
  ids_BT, h_BTD, last_B1D = next_BT, state_BTD, state_BTD[:, -1:]
  tokens: list[jax.Array] = []
  logits: list[jax.Array] = []
  kept: list[Any] = []
  for k in range(1, mtp.depth + 1):
    out = _deeper(spec, dims, params, k, h_BTD, ids_BT, ctx, [cache['layers'][k - 1]], None)
    last_B1D = jnp.take_along_axis(out.x_BTD, last_B1[:, :, None], 1)
    logits_BV = unembed(spec, dims, params, last_B1D)[:, 0]
    tok_B = choose(logits_BV, k)
    tokens, logits, kept = [*tokens, tok_B], [*logits, logits_BV], [*kept, out.caches[0]]
    ids_BT = jnp.where(place_BT == last_B1, tok_B[:, None], shifted(ids_BT))
    h_BTD = out.x_BTD if mtp.chained else state_BTD
  cache = inputs_lib.advance(cache, info, kept)
  return {
    'tokens': jnp.stack(tokens, 1),
    'logits': jnp.stack(logits, 1),
    'state': last_B1D,
    'cache': cache,
  }


def unembed(spec: Model, dims: Dims, params: Params, x_BTD: jax.Array) -> jax.Array:
  """The model's head: logits_BTV."""
  assert spec.lm is not None
  table_VD = (
    spec.embed.make(dims).apply({'params': params['embed']}, method='tied_table')
    if spec.lm.tied
    else None
  )
  context = HeadContext(unpadded(*x_BTD.shape[:2]), {}, {}, table_VD)
  logits: Any = spec.lm.make(dims).apply({'params': params.get('head', {})}, x_BTD, context)
  return logits[spec.lm.name or 'logits']


def _deeper(spec, dims, params, k, h_BTD, ids_BT, ctx, caches, key) -> stack_lib.Passed:
  """What depth k makes of h_BTD, and of the tokens `ids_BT` if it is told them."""
  own = params['mtp'][f'depth_{k}']
  if spec.mtp.chained:
    e_BTD = spec.embed.make(dims).apply({'params': params['embed']}, ids_BT, None, method='lookup')
    h_BTD = stack_lib.call(spec.mtp.make(dims), own, 'join', h_BTD, e_BTD)
  elif 'norm' in params:
    own = own | {'norm': params['norm']}
  return stack_lib.apply_stack(one_layer(spec), dims, own, h_BTD, ctx, caches, key)


def one_layer(spec: Model) -> Tower:
  """Return the one layer of a depth, as a tower."""
  segment = Segment((blocks(spec)[-1],), 1)
  return Tower(
    spec.embed, spec.d_model, (segment,), norm=spec.norm, shared_relative=spec.shared_relative
  )


def _mtp(spec: Model) -> Any:
  if spec.mtp is None:
    raise errors.UserError(
      'mtp: the model predicts the next token only. Expected a model with mtp=sequential or '
      'parallel.'
    )
  if spec.encoder is not None:
    raise errors.UserError(
      'mtp: a model with an encoder has no draft of its own. Expected a decoder.'
    )
  return spec.mtp
