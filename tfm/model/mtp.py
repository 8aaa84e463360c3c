"""Multi-token prediction: the layers of `spec.mtp` in training, and as drafts for decoding.

Each depth is a stack of one layer like the model's last, with its own parameters under
`params['mtp']['depth_1']` and so on.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from tfm.core import errors
from tfm.model import cache as cache_lib
from tfm.model import inputs as inputs_lib
from tfm.model import stack as stack_lib
from tfm.model.spec import Model, Segment, Tower, blocks, token_extras
from tfm.model.stack import Params, named_key
from tfm.parts.cache.base import Cache
from tfm.parts.cache.dense import DenseCache
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.embed.base import Outputs, unpadded
from tfm.parts.head.base import HeadContext
from tfm.parts.mtp.base import MTP


class MTPOutput(NamedTuple):
  """The result of all depths.

  Attributes:
    hidden: The last hidden state `[B, T, D]` of each depth.
    aux: A scalar to add to the loss.
    load: Expert loads, at the paths of the parameters.
  """

  hidden: tuple[jax.Array, ...]
  aux: jax.Array
  load: Params


def init(spec: Model, key: jax.Array, dims: Dims, outputs: Outputs) -> Params:
  """Return boxed parameters of every depth.

  Args:
    spec: A model with `mtp`.
    key: A random key.
    dims: The sizes of the model's own tower.
    outputs: The outputs of other towers.

  Returns:
    Parameters by depth.
  """
  mtp = spec.mtp
  assert mtp is not None
  x_BTD = jnp.zeros((1, 1, spec.d_model), dims.run.precision.dtype('compute'))
  params: Params = {}
  for k in range(1, mtp.depth + 1):
    depth_key = named_key(key, f'depth_{k}')
    depth = stack_lib.init_stack(depth_key, one_layer(spec), dims, outputs)
    if mtp.chained:
      e_BTR = jnp.zeros((1, 1, dims.foot.d_model), x_BTD.dtype)
      depth['join'] = mtp.make(dims).init(named_key(depth_key, 'join'), x_BTD, e_BTR)['params']
    else:
      depth.pop('norm', None)  # the model's final norm is used
    params[f'depth_{k}'] = depth
  return params


def forward_depths(
  spec: Model,
  dims: Dims,
  params: Params,
  state_BTD: jax.Array,
  ids_BT: jax.Array,
  ctx: Ctx,
  key: jax.Array | None,
) -> MTPOutput:
  """Run every depth over whole sequences, as in training.

  The last k places of a document read tokens of the next document at depth k. No earlier place
  depends on them, and the loss excludes them.

  Args:
    spec: A model with `mtp`.
    dims: The sizes of the model's own tower.
    params: The model's parameters.
    state_BTD: `mtp_state` of `apply`.
    ids_BT: The tokens at the same places.
    ctx: The context of the model's own tower.
    key: Turns dropout on.

  Returns:
    The hidden states of all depths, with the auxiliary loss and expert loads.
  """
  mtp = spec.mtp
  assert mtp is not None
  hidden: list[jax.Array] = []
  loads: Params = {}
  aux, h_BTD = jnp.zeros((), jnp.float32), state_BTD
  for k in range(1, mtp.depth + 1):
    ids_BT = shift_left(ids_BT)
    depth_key = None if key is None else named_key(key, f'mtp_{k}')
    out = _forward_depth(spec, dims, params, k, h_BTD, ids_BT, ctx, None, depth_key)
    hidden, aux = [*hidden, out.x_BTD], aux + out.aux
    loads |= {f'depth_{k}': out.load} if out.load else {}
    h_BTD = out.x_BTD if mtp.chained else state_BTD
  return MTPOutput(tuple(hidden), aux, {'mtp': loads} if loads else {})


def shift_left(x_BT: jax.Array) -> jax.Array:
  """Return `x_BT` moved one place to the left, with 0 at the end."""
  return jnp.concatenate([x_BT[:, 1:], jnp.zeros_like(x_BT[:, :1])], 1)


def init_cache(
  spec: Model, batch: int, slots: int, dtype: DTypeLike = jnp.float32, kind: Cache = DenseCache()
) -> dict[str, Any]:
  """Return an empty cache for the layers of `spec.mtp`.

  It holds the same tokens as the model's cache, and is rewound in the same way (`cache.rewind`).

  Args:
    spec: A model with `mtp`.
    batch: The number of sequences.
    slots: The most tokens per sequence.
    dtype: The dtype of keys and values.
    kind: The kind of cache.

  Returns:
    The cache.
  """
  depths = dataclasses.replace(spec, segments=one_layer(spec).segments * _mtp(spec).depth)
  return cache_lib.init_cache(depths, batch, slots, dtype, kind=kind)


def greedy(logits_BV: jax.Array, k: int) -> jax.Array:
  """Return the most probable token, int32 `[B]`, at any depth k."""
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
  """Propose one token per depth after `next_BT`, when the model has just processed T tokens.

  Call it with the prompt first, then in each round with the accepted tokens.

  In a chained depth above 1, the cache entries of a sequence's last places depend on drafted
  tokens. If such a token is rejected, the entries differ slightly from training. This lowers the
  acceptance rate, never the exactness. To avoid it, rewind the cache by depth - 1 more tokens and
  pass those tokens again.

  Args:
    spec: A model with `mtp` and without an encoder.
    params: Its parameters.
    cache: From `init_cache` or an earlier call.
    state_BTD: `mtp_state` of `apply` for the T tokens.
    next_BT: The token after each of them, the last one sampled by the model.
    mask_BT: 0 for padding, anywhere in the sequence. None: no padding.
    choose: `(logits_BV, k) -> tokens`, int32 `[B]`, samples the token of depth k.
    run: Kernels and precision.

  Returns:
    A dict with `tokens` `[B, depth]`; `logits` `[B, depth, V]`; the new `cache`; and `state`
    `[B, 1, D]`. For one more token from chained depths, pass `state` as `state_BTD` and the last of
    `tokens` as `next_BT`. That token is less likely to be accepted.

  Raises:
    UserError: if the model has no `mtp`, or an encoder.
  """
  mtp = _mtp(spec)
  B, T = next_BT.shape
  dims = stack_lib.tower_dims(spec, spec, run)
  mask = {} if mask_BT is None else {'attention_mask': mask_BT}
  info = spec.embed.info(mask, (B, T))
  info = info.at(info.positions + cache['next'][:, None])
  if 'prefix' in token_extras(spec):
    info = info.with_extras(prefix=jnp.zeros(next_BT.shape, bool))
  ctx = Ctx(info, slot=cache['slot'], ordered=True)
  place_BT = jnp.broadcast_to(jnp.arange(T)[None], (B, T))
  last_B1 = jnp.max(jnp.where(info.segment_ids > 0, place_BT, 0), 1)[:, None]
  ids_BT, h_BTD, last_B1D = next_BT, state_BTD, state_BTD[:, -1:]
  tokens: list[jax.Array] = []
  logits: list[jax.Array] = []
  layers: list[Any] = []
  for k in range(1, mtp.depth + 1):
    out = _forward_depth(spec, dims, params, k, h_BTD, ids_BT, ctx, [cache['layers'][k - 1]], None)
    last_B1D = jnp.take_along_axis(out.x_BTD, last_B1[:, :, None], 1)
    logits_BV = unembed(spec, dims, params, last_B1D)[:, 0]
    tok_B = choose(logits_BV, k)
    tokens, logits, layers = [*tokens, tok_B], [*logits, logits_BV], [*layers, out.caches[0]]
    ids_BT = jnp.where(place_BT == last_B1, tok_B[:, None], shift_left(ids_BT))
    h_BTD = out.x_BTD if mtp.chained else state_BTD
  cache = inputs_lib.advance_cache(cache, info, layers)
  return {
    'tokens': jnp.stack(tokens, 1),
    'logits': jnp.stack(logits, 1),
    'state': last_B1D,
    'cache': cache,
  }


def unembed(
  spec: Model, dims: Dims, params: Params, x_BTD: jax.Array, factored: bool = False
) -> jax.Array:
  """Return the logits `[B, T, V]` of the model's head `lm`.

  Args:
    spec: A language model.
    dims: The sizes of the tower.
    params: Its parameters.
    x_BTD: Hidden states after the final norm.
    factored: Whether to return `LogitFactors`, if the head can.

  Returns:
    Logits `[B, T, V]`.
  """
  assert spec.lm is not None
  table_VD = None
  if spec.lm.tied:
    table_VD = spec.embed.make(dims).apply({'params': params['embed']}, method='tied_table')
  context = HeadContext(unpadded(*x_BTD.shape[:2]), {}, {}, table_VD, factored=factored)
  logits: Any = spec.lm.make(dims).apply({'params': params.get('head', {})}, x_BTD, context)
  return logits[spec.lm.name or 'logits']


def _forward_depth(
  spec: Model,
  dims: Dims,
  params: Params,
  k: int,
  h_BTD: jax.Array,
  ids_BT: jax.Array,
  ctx: Ctx,
  caches: list[Any] | None,
  key: jax.Array | None,
) -> stack_lib.StackOutput:
  """Run depth k over hidden states, and over the next tokens `ids_BT` if depths are chained."""
  mtp = spec.mtp
  assert mtp is not None
  depth = params['mtp'][f'depth_{k}']
  if mtp.chained:
    e_BTD = spec.embed.make(dims).apply({'params': params['embed']}, ids_BT, None, method='lookup')
    h_BTD = stack_lib.call(mtp.make(dims), depth, 'join', h_BTD, e_BTD)
  elif 'norm' in params:
    depth = depth | {'norm': params['norm']}
  return stack_lib.apply_stack(one_layer(spec), dims, depth, h_BTD, ctx, caches, key)


def one_layer(spec: Model) -> Tower:
  """Return the one layer of a depth, as a tower."""
  segment = Segment((blocks(spec)[-1],), 1)
  return Tower(
    spec.embed, spec.d_model, (segment,), norm=spec.norm, shared_relative=spec.shared_relative
  )


def _mtp(spec: Model) -> MTP:
  if spec.mtp is None:
    raise errors.UserError(
      'mtp: the model predicts the next token only. Expected mtp=sequential or parallel.'
    )
  if spec.encoder is not None:
    raise errors.UserError(
      'mtp: multi-token drafts do not support an encoder. Expected a decoder-only model.'
    )
  return spec.mtp
