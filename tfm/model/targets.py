"""Two streams (XLNet, arXiv:1906.08237): tokens in an order of prediction, and places that are asked what stands there.

A content token sees those up to its own place in the order, h_i = f(h_j: order_j <= order_i). A target starts as one
learned vector, knows where it stands but not which token does, and sees those before it, g_i = f(h_j: order_j <
order_i), through the same weights. So a target is one more token of the row that looks and is never looked at: both
streams are one longer row, and no layer, mask, position or kernel knows of them.

*Cost*: P targets of a row of T tokens are P more rows of everything, keys and values that nobody reads among it.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from tfm.model.spec import Model
from tfm.parts.tokeninfo import TokenInfo

#: Out of the sight of everybody.
_NEVER = jnp.iinfo(jnp.int32).max


def unfit(spec: Model, names: dict[str, Any], cache: Any) -> Iterator[str]:
  """A sentence for everything that keeps a model from the inputs `order_ids` and `target_positions` among `names`."""
  asked = 'target_positions' in names
  if not asked and 'order_ids' not in names:
    return
  if not spec.masked:
    yield (
      'order_ids: some layer tells tokens of others whatever a mask says (a mixer without masks, a router that weighs '
      'tokens, an encoder). Wanted a single stack of attention.'
    )
  if cache is not None:
    yield 'order_ids: a cache keeps no order. Wanted whole rows, without a cache.'
  if asked and 'order_ids' not in names:
    yield 'target_positions: without order_ids a target would see its own token. Wanted both.'
  if asked and not spec.embed.query:
    yield 'target_positions: the model has no vector to ask by. Wanted embed.query=true.'
  if asked and (spec.mtp is not None or spec.classifier is not None):
    yield 'target_positions: neither mtp nor a classifier reads targets. Wanted mtp=none and classifier=none.'


def ordered(info: TokenInfo, order_BT: jax.Array) -> TokenInfo:
  """The infos of tokens that are predicted in this order, int32; equal ones see each other."""
  order_BT = order_BT.astype(jnp.int32)
  return info.with_extras(order=order_BT, bound=order_BT + 1)


def asking(info: TokenInfo, place_BP: jax.Array) -> TokenInfo:
  """The infos of targets at these places of the rows, -1 for none, given those of the (ordered) tokens."""
  at_BP = jnp.maximum(place_BP, 0)
  own = jax.tree.map(lambda a: jnp.take_along_axis(a, at_BP, 1), info)
  order_BP = own.extras['order']
  own = own.with_extras(order=jnp.full_like(order_BP, _NEVER), bound=order_BP)
  return own.replace(segment_ids=jnp.where(place_BP < 0, 0, own.segment_ids))


def joined(tokens: Any, targets: Any) -> Any:
  """Trees of `[B, T, ...]` and `[B, P, ...]` as `[B, T + P, ...]`."""
  return jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), tokens, targets)
