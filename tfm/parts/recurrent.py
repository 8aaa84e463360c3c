"""Chunked recurrences over packed documents, and the short convolution before many of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded, trailing
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.state import Documents

#: Tokens per chunk. Products cover the pairs of tokens within a chunk; the state carries everything
#: before it.
CHUNK = 64


class Reach(NamedTuple):
  """The dependencies between the tokens of a chunk and the state before it.

  Attributes:
    real_BT: False for padding.
    starts_BT: True for the first token of a document.
    own_BT: True for tokens of the document that the incoming state belongs to.
    seen_BTS: True where token T depends on token S; a token depends on itself.
    kept_BT: True for tokens that the outgoing state depends on.
    stays_B: True where the outgoing state depends on the incoming one.
  """

  real_BT: jax.Array
  starts_BT: jax.Array
  own_BT: jax.Array
  seen_BTS: jax.Array
  kept_BT: jax.Array
  stays_B: jax.Array


#: The recurrence of a chunk, `(state, reach, tokens) -> (state, y)`. `state` is a tree of
#: `[B, ...]`, `tokens` a tree of `[B, T, ...]`, and y `[B, T, ...]` the outputs of the tokens.
Chunk = Callable[[Any, Reach, Any], tuple[Any, jax.Array]]


def in_chunks(chunk: Chunk, state: Any, docs: Documents, tokens: Any) -> tuple[jax.Array, Any]:
  """Run a recurrence over a sequence in chunks of `CHUNK` tokens.

  Args:
    chunk: the recurrence of one chunk.
    state: the state before the first token, a tree of `[B, ...]`.
    docs: the documents of the tokens.
    tokens: the inputs of the recurrence, a tree of `[B, T, ...]`.

  Returns:
    The output of every token, `[B, T, ...]`, and the state after the last token.
  """
  B, T = docs.real.shape
  step, before = _step(chunk), (state, jnp.zeros((B,), jnp.int32))
  marks: Any = (docs.number, docs.real, docs.starts)
  if T <= CHUNK:
    (state, _), y = step(before, (marks, tokens))
    return y, state

  def fill(a: jax.Array, mode: str) -> jax.Array:
    widths = [(0, 0)] * a.ndim
    widths[1] = (0, -T % CHUNK)
    return jnp.pad(a, widths, mode=mode)

  # The filler tokens are padding of the last document, so they leave the state unchanged.
  marks = fill(marks[0], 'edge'), *(fill(a, 'constant') for a in marks[1:])
  tokens = jax.tree.map(lambda a: fill(a, 'constant'), tokens)
  pieces = jax.tree.map(
    lambda a: a.reshape(B, -1, CHUNK, *a.shape[2:]).swapaxes(0, 1), (marks, tokens)
  )
  # The backward pass recomputes the products within a chunk, so they are not stored.
  (state, _), y = jax.lax.scan(jax.checkpoint(step, prevent_cse=False), before, pieces)
  return y.swapaxes(0, 1).reshape(B, -1, *y.shape[3:])[:, :T], state


def each_state(chunk: Chunk, state: Any, docs: Documents, tokens: Any) -> Any:
  """Return the state after each token.

  Args:
    chunk: the recurrence of one chunk.
    state: the state before the first token, a tree of `[B, ...]`.
    docs: the documents of the tokens.
    tokens: the inputs of the recurrence, a tree of `[B, T, ...]`.

  Returns:
    A tree of `[B, T, ...]`.
  """

  def one(before, piece):
    after, _ = step(before, jax.tree.map(lambda a: a[:, None], piece))
    return after, after[0]

  step, marks = _step(chunk), (docs.number, docs.real, docs.starts)
  pieces = jax.tree.map(lambda a: a.swapaxes(0, 1), (marks, tokens))
  _, states = jax.lax.scan(one, (state, jnp.zeros_like(docs.number[:, 0])), pieces)
  return jax.tree.map(lambda a: a.swapaxes(0, 1), states)


def _step(chunk: Chunk) -> Any:
  """Return `chunk` as a scan body; the carry also has the document number of the state."""

  def step(before, piece):
    (state, number_B), ((number_BT, real_BT, starts_BT), tokens) = before, piece
    last_B, T = number_BT[:, -1], number_BT.shape[1]
    seen_BTS = (
      (number_BT[:, :, None] == number_BT[:, None, :])
      & jnp.tri(T, dtype=bool)[None]
      & real_BT[:, None, :]
    )
    own_BT, stays_B = number_BT == number_B[:, None], last_B == number_B
    reach = Reach(
      real_BT, starts_BT, own_BT, seen_BTS, real_BT & (number_BT == last_B[:, None]), stays_B
    )
    state, y = chunk(state, reach, tokens)
    return (state, last_B), y

  return step


def linear_scan(a: jax.Array, b: jax.Array, before: jax.Array) -> jax.Array:
  """Return h_t = a_t h_{t-1} + b_t for every t, elementwise.

  Args:
    a: the factors, `[B, T, ...]`.
    b: the inputs, `[B, T, ...]`.
    before: h before the first token, `[B, ...]`.

  Returns:
    h, `[B, T, ...]`, by an associative scan over T.
  """
  b = b.at[:, 0].add(a[:, 0] * before)
  if b.shape[1] == 1:
    return b
  join = lambda left, right: (left[0] * right[0], right[0] * left[1] + right[1])
  return jax.lax.associative_scan(join, (a, b), axis=1)[1]


def decayed(state_BNRH: jax.Array, reach: Reach, tokens: Any) -> tuple[jax.Array, jax.Array]:
  """Run one chunk of y_t = q_t S_t, S_t = exp(g_t) S_{t-1} + k_t v_t^T (arXiv:2405.21060).

  Args:
    state_BNRH: S before the chunk.
    reach: the dependencies between tokens.
    tokens: (q, k, v, g): q and k `[B, T, K, R]` for K groups of heads, v `[B, T, N, H]`, g <= 0
      `[B, T, N]`.

  Returns:
    S after the chunk, `[B, N, R, H]`, and y, `[B, T, N, H]`.
  """
  q_BTKR, k_BTKR, v_BTNH, log_BTN = tokens
  (B, T, N, H), K = v_BTNH.shape, k_BTKR.shape[2]
  total_BTN, gap_BTSN = _decays(log_BTN, reach)
  score_BTSK = jnp.einsum('BTKR,BSKR->BTSK', q_BTKR, k_BTKR)
  weight_BTSN = jnp.repeat(score_BTSK, N // K, axis=3) * gap_BTSN
  y_BTNH = jnp.einsum('BTSN,BSNH->BTNH', weight_BTSN, v_BTNH)
  grouped = state_BNRH.reshape(B, K, N // K, *state_BNRH.shape[2:])
  old_BTNH = jnp.einsum('BTKR,BKGRH->BTKGH', q_BTKR, grouped).reshape(B, T, N, H)
  y_BTNH += jnp.where(reach.own_BT[..., None, None], jnp.exp(total_BTN)[..., None] * old_BTNH, 0)
  left_BTN = jnp.where(reach.kept_BT[..., None], jnp.exp(total_BTN[:, -1:] - total_BTN), 0)
  v_BTKGH = (left_BTN[..., None] * v_BTNH).reshape(B, T, K, N // K, H)
  new_BNRH = jnp.einsum('BTKR,BTKGH->BKGRH', k_BTKR, v_BTKGH).reshape(state_BNRH.shape)
  return _faded(state_BNRH, total_BTN, reach) + new_BNRH, y_BTNH


def delta(state_BNRH: jax.Array, reach: Reach, tokens: Any) -> tuple[jax.Array, jax.Array]:
  """Run one chunk of the gated delta rule (arXiv:2412.06464).

  It computes y_t = q_t S_t with S_t = exp(g_t) S_{t-1} + k_t u_t^T and u_t = b_t (v_t - exp(g_t)
  k_t S_{t-1}). The u of a chunk are the solution of a triangular system.

  Args:
    state_BNRH: S before the chunk.
    reach: the dependencies between tokens.
    tokens: (q, k, v, b, g): q and k `[B, T, N, R]`, v `[B, T, N, H]`, b and g <= 0 `[B, T, N]`.

  Returns:
    S after the chunk, `[B, N, R, H]`, and y, `[B, T, N, H]`.
  """
  q_BTNR, k_BTNR, v_BTNH, rate_BTN, log_BTN = tokens
  rate_BTN = jnp.where(reach.real_BT[..., None], rate_BTN, 0)
  total_BTN, gap_BTSN = _decays(log_BTN, reach)
  from_state = jnp.where(reach.own_BT[..., None], jnp.exp(total_BTN), 0)[..., None]
  read = lambda x_BTNR: from_state * jnp.einsum('BTNR,BNRH->BTNH', x_BTNR, state_BNRH)
  u_BTNH = rate_BTN[..., None] * (v_BTNH - read(k_BTNR))
  T = u_BTNH.shape[1]
  if T > 1:
    overlap_BTSN = rate_BTN[:, :, None] * jnp.einsum('BTNR,BSNR->BTSN', k_BTNR, k_BTNR) * gap_BTSN
    system_BNTS = (
      jnp.moveaxis(overlap_BTSN, 3, 1) * jnp.tri(T, k=-1, dtype=u_BTNH.dtype)[None, None]
    )
    system_BNTS += jnp.eye(T, dtype=u_BTNH.dtype)[None, None]
    solve = lambda a, b: jax.scipy.linalg.solve_triangular(a, b, lower=True, unit_diagonal=True)
    u_BTNH = solve(system_BNTS, u_BTNH.swapaxes(1, 2)).swapaxes(1, 2)
  score_BTSN = jnp.einsum('BTNR,BSNR->BTSN', q_BTNR, k_BTNR) * gap_BTSN
  y_BTNH = read(q_BTNR) + jnp.einsum('BTSN,BSNH->BTNH', score_BTSN, u_BTNH)
  left_BTN = jnp.where(reach.kept_BT[..., None], jnp.exp(total_BTN[:, -1:] - total_BTN), 0)
  new_BNRH = jnp.einsum('BTNR,BTNH->BNRH', k_BTNR, left_BTN[..., None] * u_BTNH)
  return _faded(state_BNRH, total_BTN, reach) + new_BNRH, y_BTNH


def _decays(log_BTN: jax.Array, reach: Reach) -> tuple[jax.Array, jax.Array]:
  """Return cumulative log decays and pairwise decays of a chunk.

  The first, `[B, T, N]`, is the log decay from the start of the chunk to each token. The second,
  `[B, T, S, N]`, is the decay from token S to token T, 0 where T does not depend on S.
  """
  total_BTN = jnp.cumsum(jnp.where(reach.real_BT[..., None], log_BTN, 0), axis=1)
  gap_BTSN = total_BTN[:, :, None] - total_BTN[:, None]
  return total_BTN, jnp.exp(jnp.where(reach.seen_BTS[..., None], gap_BTSN, -jnp.inf))


def _faded(state_BNRH: jax.Array, total_BTN: jax.Array, reach: Reach) -> jax.Array:
  """Return the share of the incoming state that remains after the chunk."""
  left_BN = jnp.where(reach.stays_B[:, None], jnp.exp(total_BTN[:, -1]), 0)
  return left_BN[..., None, None] * state_BNRH


class ShortConv(Module):
  """Depthwise causal convolution y_t = sum_p x_{t-p} W_p (+ b) within each document.

  `(x_BTC, tail_BPC, docs) -> (y_BTC, tail)`. The state of a sequence is its last `size` - 1 inputs,
  newest last. `tail(False)` returns the state after the call, `tail(True)` after each token.

  Attributes:
    channels: C, the number of channels.
    size: the number of taps. Entry 0 of the parameter `taps` belongs to the oldest token.
    dims: the dims of the layer.
    bias: whether to add a bias.
  """

  channels: int
  size: int
  dims: Dims
  bias: bool = True

  @nn.compact
  def __call__(
    self, x_BTC: jax.Array, tail_BPC: jax.Array, docs: Documents
  ) -> tuple[jax.Array, Any]:
    dtype, shape = self.dims.run.precision.dtype('param'), (self.size, self.channels)
    init = sharded(self.dims.init.weight('conv', self.size, self.channels, self.dims), 'PC')
    taps_PC = self.param('taps', init, shape, dtype).astype(x_BTC.dtype)
    lag = _lags(x_BTC, tail_BPC.astype(x_BTC.dtype), docs)
    y_BTC = x_BTC * trailing(taps_PC[-1], 3)
    for p in range(1, self.size):
      y_BTC += lag(p) * trailing(taps_PC[-1 - p], 3)
    if self.bias:
      zeros = sharded(nn.initializers.zeros, 'C')
      y_BTC += trailing(self.param('bias', zeros, (self.channels,), dtype).astype(x_BTC.dtype), 3)

    def tail(each: bool) -> jax.Array:
      inputs = [lag(p, last=not each) for p in reversed(range(self.size - 1))]
      return jnp.stack(inputs, 2) if each else jnp.concatenate(inputs, 1)

    return y_BTC, tail


def _lags(x_BTC: jax.Array, tail_BPC: jax.Array, docs: Documents) -> Callable[..., jax.Array]:
  """Return `lag(p)`, the input p tokens before each token, or 0 before its document starts.

  `lag(p, last=True)` returns only the entry of the last token. Padding is skipped, wherever it
  occurs.
  """
  B, P = tail_BPC.shape[:2]
  joined_BSC = jnp.concatenate([tail_BPC, x_BTC], axis=1)
  number_BS = jnp.concatenate([jnp.zeros((B, P), jnp.int32), docs.number], axis=1)
  rank_BT = jnp.cumsum(docs.real, axis=1, dtype=jnp.int32)
  order_BT = jnp.argsort(~docs.real, axis=1, stable=True)
  pick = lambda a, index: jnp.take_along_axis(a, jnp.maximum(index, 0), axis=1)

  def lag(p: int, last: bool = False) -> jax.Array:
    rank, number = rank_BT, docs.number
    if last:
      rank, number = rank[:, -1:], number[:, -1:]
    index = jnp.where(rank > p, P + pick(order_BT, rank - p - 1), P + rank - p - 1)
    known = (index >= 0) & (pick(number_BS, index) == number)
    earlier = jax.vmap(lambda a, i: a[i])(joined_BSC, jnp.maximum(index, 0))
    return jnp.where(known[..., None], earlier, 0)

  return lag
