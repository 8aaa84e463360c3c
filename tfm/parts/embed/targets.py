"""Two-stream prediction in any order, with extra tokens (XLNet, arXiv:1906.08237).

With `order_ids`, a content token attends to tokens up to its place in the order: h_i = f(h_j:
order_j <= order_i). A target (`target_positions`) starts as a learned vector. It has the position
of its token, but not the token, and attends to earlier tokens in the order: g_i = f(h_j: order_j <
order_i). The weights are the same. So a target is one more token that attends and is never attended
to, and both streams form one longer sequence. Other parts need no special case.

P targets make the sequence P tokens longer, including keys and values that no query attends to.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from tfm.parts.embed.base import Embedded
from tfm.parts.tokeninfo import TokenInfo

#: Names of the inputs, and of the extras of `TokenInfo` made from them.
NAMES = ('order_ids', 'target_positions')
EXTRAS = ('order', 'bound')
#: A place in the order that is masked out for every query.
_NEVER = jnp.iinfo(jnp.int32).max


def add_targets(
  start: Embedded, inputs: Mapping[str, jax.Array], queries: Callable[[jax.Array], jax.Array]
) -> Embedded:
  """Add the prediction order and, after the tokens, the targets.

  Args:
    start: the sequence of tokens.
    inputs: the inputs; `order_ids` and `target_positions` are used.
    queries: returns the vectors of targets, given their token types.

  Returns:
    The sequence; unchanged without `order_ids`.
  """
  if 'order_ids' not in inputs:
    return start
  info = ordered(start.info, inputs['order_ids'])
  if (place_BP := inputs.get('target_positions')) is None:
    return start._replace(info=info)
  type_BT = inputs.get('token_type_ids', jnp.zeros_like(info.positions))
  x_BPD = queries(jnp.take_along_axis(type_BT, jnp.maximum(place_BP, 0), 1))
  x_BTD, info = _joined((start.x_BTD, info), (x_BPD, of_targets(info, place_BP)))
  return Embedded(x_BTD, info, ordered=False, outputs=place_BP.shape[1])


def ordered(info: TokenInfo, order_BT: jax.Array) -> TokenInfo:
  """Return the info of tokens in this prediction order, int32 `[B, T]`.

  Tokens of equal order attend to each other.
  """
  order_BT = order_BT.astype(jnp.int32)
  return info.with_extras(order=order_BT, bound=order_BT + 1)


def of_targets(info: TokenInfo, place_BP: jax.Array) -> TokenInfo:
  """Return the info of targets at the given places of the sequences (-1: none)."""
  at_BP = jnp.maximum(place_BP, 0)
  target = jax.tree.map(lambda a: jnp.take_along_axis(a, at_BP, 1), info)
  order_BP = target.extras['order']
  target = target.with_extras(order=jnp.full_like(order_BP, _NEVER), bound=order_BP)
  return dataclasses.replace(target, segment_ids=jnp.where(place_BP < 0, 0, target.segment_ids))


def _joined(tokens: Any, others: Any) -> Any:
  """Concatenate trees of `[B, T, ...]` and `[B, P, ...]` to `[B, T + P, ...]`."""
  return jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), tokens, others)
