"""Pooling: one vector per sequence from the hidden states of its tokens."""

from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.parts.head.base import HeadContext
from tfm.parts.tokeninfo import TokenInfo

#: first, last: the first or last token that is not padding. second: the one after the first (DeiT's
#: distillation token). end: the last position, padding or not (SigLIP). mean: over all tokens that
#: are not padding. patches: the mean over image patches, without class and register tokens.
#: first_patches: `first` and `patches` concatenated. largest: the token with the largest id (CLIP,
#: whose end token is its last id). A number: the first token with this id, or the first of all if
#: there is none (an end token below added ones). each: every token by itself.
Pick = (
  Literal['first', 'second', 'last', 'end', 'mean', 'patches', 'first_patches', 'largest', 'each']
  | int
)


#: Kinds that take a token from the front of a row.
_EARLY = ('first', 'second', 'first_patches')


def width(pick: Pick, d: int) -> int:
  """Return the width of a picked vector of hidden states of width `d`."""
  return 2 * d if pick == 'first_patches' else d


def fits(pick: Pick, tower: Any) -> Iterator[str]:
  """Yield a sentence if `pick` takes a token that depends on no other, or looks for one that a
  tower never has.
  """
  if pick in _EARLY and tower.causal and _reads_rows(tower):
    yield (
      f'pick={pick} takes a token that cannot attend to the rest of the row, as every mixer is '
      f'causal. '
      'Expected pick=last, or pick=mean.'
    )
  if pick in ('patches', 'first_patches') and 'grid' not in tower.embed.provides:
    yield f'pick={pick} needs image patches, and the tower reads none. Expected pick=mean or embed=patches.'
  if (pick == 'largest' or isinstance(pick, int)) and not tower.vocab:
    yield f'pick={pick} looks for a token id, and the tower reads no tokens. Expected first, mean or patches.'
  elif isinstance(pick, int) and not 0 <= pick < tower.vocab:
    yield f'pick={pick} is no token id. Expected one of 0 to {tower.vocab - 1}.'


def picked(x_BTD: jax.Array, context: HeadContext, pick: Pick) -> jax.Array:
  """Return the vectors that `pick` names: `[B, D]`, or `[B, T, D]` for 'each'.

  Padding is used by 'end', and by the kinds that look for a token id where padding has that id.
  """
  real_BT = context.info.segment_ids > 0
  if pick == 'each':
    return x_BTD
  if pick == 'end':
    return x_BTD[:, -1]
  if pick == 'mean':
    return _mean(x_BTD, real_BT)
  if pick in ('patches', 'first_patches'):
    grid_BT2 = context.info.get('grid')
    if grid_BT2 is None:
      raise errors.UserError(
        f'head: pick={pick} needs image patches, and the tower has none. Expected pick=mean.'
      )
    mean_BD = _mean(x_BTD, real_BT & (grid_BT2[..., 0] >= 0))
    if pick == 'patches':
      return mean_BD
    return jnp.concatenate([picked(x_BTD, context, 'first'), mean_BD], -1)
  T = real_BT.shape[1]
  if pick == 'largest' or isinstance(pick, int):
    if (ids_BT := context.inputs.get('input_ids')) is None:
      raise errors.UserError(
        f'head: pick={pick} needs input_ids. Expected them beside the outputs of the tower.'
      )
    place_B = jnp.argmax(ids_BT if pick == 'largest' else ids_BT == pick, 1)
  elif pick == 'last':
    place_B = T - 1 - jnp.argmax(real_BT[:, ::-1], 1)
  else:
    place_B = jnp.argmax(real_BT, 1) + (pick == 'second')
  return jnp.take_along_axis(x_BTD, place_B[:, None, None], 1)[:, 0]


def _reads_rows(tower: Any) -> bool:
  """Return whether tokens of the tower learn of each other, and of nothing else, through its
  mixers.
  """
  mixes = any(block.mixer is not None for segment in tower.segments for block in segment.pattern)
  return mixes and not tower.reads_towers


def of_stream(
  x_BTD: jax.Array, info: TokenInfo, index: int, count: int
) -> tuple[jax.Array, TokenInfo]:
  """Return the vectors and the info of stream `index`, of `count` streams that take turns."""
  return jax.tree.map(lambda a: a[:, index::count], (x_BTD, info))


def unit(x: jax.Array) -> jax.Array:
  """Return `x` divided by its length over the last axis; a vector of zeros stays as it is."""
  f = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  squared = jnp.sum(f * f, -1, keepdims=True)
  return (f * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))).astype(x.dtype)


def _mean(x_BTD: jax.Array, kept_BT: jax.Array) -> jax.Array:
  share_BT = kept_BT / jnp.maximum(jnp.sum(kept_BT, 1, keepdims=True), 1)
  return jnp.einsum('BT,BTD->BD', share_BT.astype(x_BTD.dtype), x_BTD)
