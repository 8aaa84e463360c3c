"""Two-stream prediction in any order (XLNet, arXiv:1906.08237), as extra tokens of the sequence.

With `order_ids` a content token attends to tokens up to its own place in the order, h_i = f(h_j:
order_j <= order_i). A target (`target_positions`) starts as one learned vector, knows its position
but not its token, and attends to the tokens before it in the order, g_i = f(h_j: order_j <
order_i), with the same weights. So a target is one more token that attends and is never attended
to: both streams are one longer sequence, and no other part knows of them.

Cost: P targets make the sequence P tokens longer, including keys and values that no query attends
to."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from tfm.parts.embed.base import Embedded
from tfm.parts.tokeninfo import TokenInfo

#: The inputs, and the extras of `TokenInfo` made of them.
NAMES = ('order_ids', 'target_positions')
EXTRAS = ('order', 'bound')
#: A place in the order that no query attends to.
_NEVER = jnp.iinfo(jnp.int32).max


def add(
  start: Embedded, inputs: Mapping[str, jax.Array], queries: Callable[[jax.Array], jax.Array]
) -> Embedded:
  """Return `start` with the order of `inputs` and, after its tokens, the targets; `queries(types)`
  embeds those.
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
  """Return the info of tokens predicted in this order, int32; tokens of equal order attend to each
  other.
  """
  order_BT = order_BT.astype(jnp.int32)
  return info.with_extras(order=order_BT, bound=order_BT + 1)


def of_targets(info: TokenInfo, place_BP: jax.Array) -> TokenInfo:
  """Return the info of targets at these places of the rows (-1: none), given that of the ordered
  tokens.
  """
  at_BP = jnp.maximum(place_BP, 0)
  own = jax.tree.map(lambda a: jnp.take_along_axis(a, at_BP, 1), info)
  order_BP = own.extras['order']
  own = own.with_extras(order=jnp.full_like(order_BP, _NEVER), bound=order_BP)
  return dataclasses.replace(own, segment_ids=jnp.where(place_BP < 0, 0, own.segment_ids))


def _joined(tokens: Any, others: Any) -> Any:
  """Concatenate trees of `[B, T, ...]` and `[B, P, ...]` to `[B, T + P, ...]`."""
  return jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), tokens, others)
