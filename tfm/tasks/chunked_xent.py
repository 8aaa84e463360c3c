"""Cross-entropy in chunks of the vocabulary, which never stores all logits."""

from collections.abc import Callable
import functools
import math
from typing import Any, NamedTuple, Protocol

import jax
from jax import lax
import jax.numpy as jnp

from tfm.core.axes import constrained, mesh_axes
from tfm.tasks.xent import CrossEntropy, Target, at_least_float32

#: Logits of more bytes on a device, in float32, are computed in chunks of up to half of it.
WHOLE_BYTES = 2**29

#: A multiple of this many entries suits the tiles of accelerators.
_TILE = 128


class Factors(Protocol):
  """Logits cap(x W + b) as factors. `tfm.parts.head.factors.LogitFactors` has these properties."""

  x_BTD: jax.Array
  weight: jax.Array
  bias_V: jax.Array | None
  letters: str
  cap: float | None

  @property
  def vocab(self) -> int: ...

  def logits(self) -> jax.Array: ...


class Plan(NamedTuple):
  """Static arguments of the loss.

  Attributes:
    target: The target distribution and z-loss.
    letters: The axes of the weight, 'DV' or 'VD', with 'R' for another width.
    cap: The bound of the logits, or None.
    shards: The number of devices that split the vocabulary.
    chunk: Entries of a chunk on each of these devices.
    size: Entries of the vocabulary on each of these devices.
  """

  target: Target
  letters: str
  cap: float | None
  shards: int
  chunk: int
  size: int

  @property
  def chunks(self) -> int:
    """The number of chunks."""
    return -(-self.size // self.chunk)


def chunk_size(factors: Factors, chunk: int | None) -> int:
  """Return the entries of the vocabulary in a chunk, or 0 for the whole vocabulary.

  Args:
    factors: The factors of the logits.
    chunk: The given number of entries. None: 0 if the logits of a device take up to `WHOLE_BYTES`
      in float32, else the entries that take half of it.

  Returns:
    The number of entries.
  """
  if chunk is None:
    shape, shards = factors.x_BTD.shape[:2], _ways('V', (factors.vocab,))
    entry = 4 * math.prod(shape) // _ways('BT', shape)  # bytes of a logit of each position
    whole = entry * factors.vocab <= WHOLE_BYTES * shards
    chunk = 0 if whole else shards * max(WHOLE_BYTES // 2 // entry, _TILE)
  return 0 if chunk >= factors.vocab else chunk


def chunked_cross_entropy(
  factors: Factors, labels_BT: jax.Array, target: Target, chunk: int
) -> CrossEntropy:
  """Return the cross-entropy of each position, as `xent.cross_entropy` of the multiplied factors.

  A scan over chunks of the vocabulary keeps the largest logit and the sum of exponentials so far.
  The backward pass computes each chunk again, which adds 2 D V operations per token. Products are
  summed in float32. A device holds the logits and the gathered weight of one chunk. If devices
  split the vocabulary, a chunk takes entries of every device.

  Args:
    factors: The factors of the logits.
    labels_BT: The label of each position.
    target: The target distribution and z-loss.
    chunk: Entries of the vocabulary in a chunk.

  Returns:
    The loss, its plain part, and whether the label is on top.
  """
  shards = _ways('V', (factors.vocab,))
  size = factors.vocab // shards
  # Equal chunks; the last one may overlap the one before.
  count = -(-size * shards // chunk)
  even = -(-size // count)
  even = min(size, -(-even // _TILE) * _TILE) if even > _TILE else even
  plan = Plan(target, factors.letters, factors.cap, shards, even, size)
  loss, nll, correct = _chunked(plan, factors.x_BTD, factors.weight, factors.bias_V, labels_BT)
  return CrossEntropy(loss, lax.stop_gradient(nll), lax.stop_gradient(correct))


def _ways(letters: str, shape: tuple[int, ...]) -> int:
  """Return the number of devices that split an array under the rules in force."""
  mesh = jax.sharding.get_abstract_mesh()
  return math.prod(mesh.shape[name] for names in mesh_axes(letters, shape) for name in names)


class _Chunk:
  """Entries [start, start + chunk) of the vocabulary of each shard; the axis s counts shards.

  Attributes:
    start: The first entry.
    fresh_sc: Whether no earlier chunk has had the entry. None: all are fresh.
    id_sc: The token ids.
  """

  def __init__(self, plan: Plan, i: jax.Array):
    self.plan = plan
    self.start = jnp.minimum(i * plan.chunk, plan.size - plan.chunk)
    at_1c = self.start + jnp.arange(plan.chunk)[None]
    self.id_sc = jnp.arange(plan.shards)[:, None] * plan.size + at_1c
    self.fresh_sc = None
    if plan.size % plan.chunk:
      self.fresh_sc = jnp.broadcast_to(at_1c >= i * plan.chunk, self.id_sc.shape)

  @property
  def axis(self) -> int:
    """The axis of the entries of a shard, in a weight with split vocabulary."""
    return 1 + self.plan.letters.index('V')

  def weight(self, w: jax.Array) -> jax.Array:
    """Return the chunk of a weight with split vocabulary, gathered over its width."""
    w_chunk = lax.dynamic_slice_in_dim(w, self.start, self.plan.chunk, self.axis)
    w_chunk = constrained(w_chunk, _split_letters(self.plan))
    return constrained(w_chunk, 'V--' if self.axis == 1 else '-V-')

  def logits(self, x_BTD: jax.Array, w: jax.Array, b_sn: jax.Array | None) -> jax.Array:
    """Return the logits [B, T, s, c] in float32 or wider."""
    dtype = at_least_float32(x_BTD.dtype)
    product = 'BTD,scD->BTsc' if self.axis == 1 else 'BTD,Dsc->BTsc'
    z_BTsc = jnp.einsum(product, x_BTD, self.weight(w), preferred_element_type=dtype)
    z_BTsc = constrained(z_BTsc, 'BTV-')
    if b_sn is not None:
      b_sc = lax.dynamic_slice_in_dim(b_sn, self.start, self.plan.chunk, 1)
      z_BTsc = z_BTsc + b_sc.astype(dtype)[None, None]
    return z_BTsc if self.plan.cap is None else self.plan.cap * jnp.tanh(z_BTsc / self.plan.cap)

  def where_fresh(self, a_BTsc: jax.Array, fill: float) -> jax.Array:
    """Return `a_BTsc` with `fill` at the entries of earlier chunks."""
    return a_BTsc if self.fresh_sc is None else jnp.where(self.fresh_sc[None, None], a_BTsc, fill)

  def is_label(self, labels_BT: jax.Array) -> jax.Array:
    """Return where a fresh entry is the label of a position."""
    is_label_BTsc = self.id_sc[None, None] == labels_BT[:, :, None, None]
    return is_label_BTsc if self.fresh_sc is None else is_label_BTsc & self.fresh_sc[None, None]

  def added(self, total: jax.Array, part: jax.Array, axis: int) -> jax.Array:
    """Return a gradient with the part of this chunk added."""
    part = part.astype(total.dtype)
    if self.fresh_sc is not None:
      part += lax.dynamic_slice_in_dim(total, self.start, self.plan.chunk, axis)
    return lax.dynamic_update_slice_in_dim(total, part, self.start, axis)


Losses = tuple[jax.Array, jax.Array, jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunked(
  plan: Plan, x_BTD: jax.Array, w: jax.Array, b_V: jax.Array | None, labels_BT: jax.Array
) -> Losses:
  return _forward(plan, x_BTD, w, b_V, labels_BT)[0]


def _forward(
  plan: Plan, x_BTD: jax.Array, w: jax.Array, b_V: jax.Array | None, labels_BT: jax.Array
) -> tuple[Losses, Any]:
  split, b_sn = _split(plan, w), _split_bias(plan, b_V)

  def body(i: jax.Array, sums: Any) -> Any:
    max_BT, sum_BT, gold_BT, total_BT = sums
    chunk = _Chunk(plan, i)
    z_BTsc = chunk.logits(x_BTD, split, b_sn)
    fresh_BTsc = chunk.where_fresh(z_BTsc, -jnp.inf)
    new_BT = jnp.maximum(max_BT, jnp.max(fresh_BTsc, (2, 3)))
    part_BT = jnp.sum(jnp.exp(fresh_BTsc - new_BT[:, :, None, None]), (2, 3))
    sum_BT = sum_BT * jnp.exp(max_BT - new_BT) + part_BT
    gold_BT += jnp.sum(jnp.where(chunk.is_label(labels_BT), z_BTsc, 0.0), (2, 3))
    if plan.target.off:
      total_BT += jnp.sum(chunk.where_fresh(z_BTsc, 0.0), (2, 3))
    return new_BT, sum_BT, gold_BT, total_BT

  zeros_BT = jnp.zeros(labels_BT.shape, at_least_float32(x_BTD.dtype))
  start = (jnp.full_like(zeros_BT, -jnp.inf), zeros_BT, zeros_BT, zeros_BT)
  max_BT, sum_BT, gold_BT, total_BT = _loop(plan, body, start)
  log_z_BT = jnp.log(sum_BT) + max_BT
  loss_BT = plan.target.loss(log_z_BT, gold_BT, total_BT)
  losses = (loss_BT, log_z_BT - gold_BT, (gold_BT >= max_BT).astype(max_BT.dtype))
  return losses, (x_BTD, w, b_V, labels_BT, log_z_BT)


def _backward(plan: Plan, residuals: Any, cotangents: Losses) -> tuple[Any, ...]:
  x_BTD, w, b_V, labels_BT, log_z_BT = residuals
  dtype = log_z_BT.dtype
  split, b_sn = _split(plan, w), _split_bias(plan, b_V)
  tied = plan.letters.index('V') == 0
  from_logits = 'BTsc,scD->BTD' if tied else 'BTsc,Dsc->BTD'
  to_weight = 'BTsc,BTD->scD' if tied else 'BTD,BTsc->Dsc'

  def body(i: jax.Array, sums: Any) -> Any:
    dx_BTD, dw, db_sn = sums
    chunk = _Chunk(plan, i)
    z_BTsc = chunk.logits(x_BTD, split, b_sn)
    g_BTsc = plan.target.gradient(z_BTsc, log_z_BT, chunk.is_label(labels_BT))
    g_BTsc *= cotangents[0][:, :, None, None]
    if plan.cap is not None:
      g_BTsc *= 1.0 - jnp.square(z_BTsc / plan.cap)
    g_BTsc = chunk.where_fresh(g_BTsc, 0.0)
    if db_sn is not None:
      db_sn = chunk.added(db_sn, jnp.sum(g_BTsc, (0, 1)), 1)
    g_BTsc = g_BTsc.astype(x_BTD.dtype)
    wide = functools.partial(jnp.einsum, preferred_element_type=dtype)
    dx_BTD += wide(from_logits, g_BTsc, chunk.weight(split))
    operands = (g_BTsc, x_BTD) if tied else (x_BTD, g_BTsc)
    dw_chunk = jnp.einsum(to_weight, *operands, preferred_element_type=w.dtype)
    dw = chunk.added(dw, constrained(dw_chunk, _split_letters(plan)), chunk.axis)
    return dx_BTD, dw, db_sn

  db_sn = None if b_sn is None else jnp.zeros(b_sn.shape, dtype)
  start = (jnp.zeros(x_BTD.shape, dtype), jnp.zeros_like(split), db_sn)
  dx_BTD, dw, db_sn = _loop(plan, body, start)
  db_V = None if b_V is None else jnp.reshape(db_sn, b_V.shape).astype(b_V.dtype)
  return dx_BTD.astype(x_BTD.dtype), dw.reshape(w.shape), db_V, None


_chunked.defvjp(_forward, _backward)


def _loop(plan: Plan, body: Callable[[jax.Array, Any], Any], start: Any) -> Any:
  return lax.fori_loop(0, plan.chunks, body, start)


def _split(plan: Plan, w: jax.Array) -> jax.Array:
  """Return a weight with its vocabulary split into (shards, entries of a shard)."""
  at = plan.letters.index('V')
  shape = (*w.shape[:at], plan.shards, plan.size, *w.shape[at + 1 :])
  return constrained(w.reshape(shape), _split_letters(plan))


def _split_letters(plan: Plan) -> str:
  return plan.letters.replace('V', 'V-')


def _split_bias(plan: Plan, b_V: jax.Array | None) -> jax.Array | None:
  return None if b_V is None else b_V.reshape(plan.shards, plan.size)
