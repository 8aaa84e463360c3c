"""Attention with a mask split into views, each in the token order that suits it."""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.parts.attend.base import Scores
from tfm.parts.mask.base import Mask, View
from tfm.parts.tokeninfo import TokenInfo


def useful_views(mask: Mask, tiles: float) -> tuple[View, ...]:
  """Return the views of the mask if reordering pays for this length, else the mask as one view.

  In sequence order about half of the tiles are visited; in a view, a tile of queries visits 2 or 3
  tiles of keys. Reordering and joining cost about the same again.
  """
  views = mask.views()
  return views if tiles > 4 * len(views) else (View(mask),)


def attend_views(
  kernel: Callable[..., tuple[jax.Array, jax.Array]],
  views: tuple[View, ...],
  q_BTNH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  q: TokenInfo,
  k: TokenInfo,
  scores: Scores,
  reduce: str,
) -> jax.Array:
  """Return attention with a mask that is the union of `views`.

  The outputs of the views are averaged by their shares of the sum of exponentials.

  Args:
    kernel: `kernel(q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce)` returns y_BTNH and the
      log-sum-exp lse_BTN of a view, both differentiable.
    views: disjoint views of the mask.
    q_BTNH: queries.
    k_BSKH: keys.
    v_BSKH: values.
    q: token info of the queries.
    k: token info of the keys.
    scores: how scores are formed.
    reduce: the dtype of the softmax.

  Returns:
    y_BTNH, in the dtype of the values.
  """
  ys, logs = [], []
  for i, view in enumerate(views):
    q_order, k_order = order(view.queries, q), order(view.keys, k)
    # The sink counts once, in the first view.
    sink_N = None if i else scores.sink_N
    own = dataclasses.replace(scores, mask=view.mask, sink_N=sink_N, ordered=False)
    if scores.drop is not None:
      query_BT, key_BS = (o and o.source_BT for o in (q_order, k_order))
      drop = dataclasses.replace(scores.drop, query_BT=query_BT, key_BS=key_BS)
      own = dataclasses.replace(own, drop=drop)
    q_v, q_info = reorder((q_BTNH, q), q_order)
    k_v, v_v, k_info = reorder((k_BSKH, v_BSKH, k), k_order)
    y, lse = reorder(kernel(q_v, k_v, v_v, q_info, k_info, own, reduce), q_order and q_order.back)
    ys.append(y)
    logs.append(lse)
  if len(views) == 1:
    return ys[0]
  total_BTN = jax.nn.logsumexp(jnp.stack(logs), 0)
  shares = [jnp.exp(lse - total_BTN)[..., None] for lse in logs]
  parts = (share * y.astype(share.dtype) for share, y in zip(shares, ys, strict=True))
  return sum(parts).astype(v_BSKH.dtype)


class Order(NamedTuple):
  """A permutation of the tokens of each sequence.

  Attributes:
    source_BT: the original index of each token.
    target_BT: the new index of each original token.
  """

  source_BT: jax.Array
  target_BT: jax.Array

  @property
  def back(self) -> 'Order':
    """The inverse permutation."""
    return Order(self.target_BT, self.source_BT)


def order(by: Callable[[TokenInfo], jax.Array] | None, info: TokenInfo) -> Order | None:
  """Return the order that sorts tokens by document, then by the key `by`; None if `by` is None.

  The sort is stable.
  """
  if by is None:
    return None
  # Token infos are often constants; the barrier keeps XLA from sorting them at compile time.
  info = jax.lax.optimization_barrier(info)
  at_BT = jnp.broadcast_to(
    jnp.arange(info.positions.shape[1], dtype=jnp.int32), info.positions.shape
  )
  source_BT = jax.lax.sort((info.segment_ids, by(info), at_BT), dimension=1, num_keys=2)[2]
  return Order(source_BT, jax.lax.sort((source_BT, at_BT), dimension=1)[1])


def reorder(tree: Any, order: Order | None) -> Any:
  """Return arrays `[B, T, ...]` in that order; unchanged if it is None."""
  return tree if order is None else jax.tree.map(lambda x: _taken(x, order), tree)


@jax.custom_vjp
def _taken(x: jax.Array, order: Order) -> jax.Array:
  """Gather tokens, with a gather as gradient: autodiff would scatter, since it assumes repeats."""
  index = order.source_BT.reshape(*order.source_BT.shape, *[1] * (x.ndim - 2))
  return jnp.take_along_axis(x, index, 1)


_taken.defvjp(
  lambda x, order: (_taken(x, order), order), lambda order, g: (_taken(g, order.back), None)
)
