"""Pooling: one vector per sequence from the hidden states of its tokens."""

from collections.abc import Iterator
from typing import Literal

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.parts.head.base import HeadContext, HeadTower
from tfm.parts.tokeninfo import TokenInfo

#: Kinds of pooling:
#:
#: - first, last: the first or last token that is not padding.
#: - second: the token after the first (DeiT's distillation token).
#: - end: the last position, also if it is padding (SigLIP).
#: - mean: the mean over all tokens that are not padding.
#: - patches: the mean over image patches, without class and register tokens.
#: - first_patches: `first` and `patches`, concatenated.
#: - largest: the token with the largest id (CLIP: the end token has the last id).
#: - a number: the first token with this id, or the first token if there is none (CLIP models with
#:   ids after the end token).
#: - each: no pooling.
Pick = (
  Literal['first', 'second', 'last', 'end', 'mean', 'patches', 'first_patches', 'largest', 'each']
  | int
)


#: Kinds that use a token at the start of the sequence.
_EARLY = ('first', 'second', 'first_patches')


def width(pick: Pick, d: int) -> int:
  """Return the width of a pooled vector of hidden states of width `d`."""
  return 2 * d if pick == 'first_patches' else d


def fits(pick: Pick, tower: HeadTower) -> Iterator[str]:
  """Yield a message if the pooled token depends on no other token, or can never exist."""
  if pick in _EARLY and tower.causal and _only_mixers(tower):
    yield (
      f'pick={pick} uses a token that cannot attend to the rest of the sequence, as every mixer is '
      'causal. Expected pick=last, or pick=mean.'
    )
  if pick in ('patches', 'first_patches') and 'grid' not in tower.embed.provides:
    yield (
      f'pick={pick} needs image patches, and the tower has none. '
      'Expected pick=mean, or embed=patches.'
    )
  if (pick == 'largest' or isinstance(pick, int)) and not tower.vocab:
    yield (
      f'pick={pick} needs token ids, and the tower has none. Expected pick=first, mean or patches.'
    )
  elif isinstance(pick, int) and not 0 <= pick < tower.vocab:
    yield f'pick={pick} is not a token id. Expected 0 to {tower.vocab - 1}.'


def pool(x_BTD: jax.Array, context: HeadContext, pick: Pick) -> jax.Array:
  """Return the pooled hidden states.

  Padding is used by 'end'. It is also used by the kinds that search for a token id, if padding has
  that id.

  Args:
    x_BTD: last hidden state.
    context: token info and inputs.
    pick: the kind of pooling.

  Returns:
    `[B, D]`, or `[B, T, D]` for 'each'.
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
    return jnp.concatenate([pool(x_BTD, context, 'first'), mean_BD], -1)
  T = real_BT.shape[1]
  if pick == 'largest' or isinstance(pick, int):
    if (ids_BT := context.inputs.get('input_ids')) is None:
      raise errors.UserError(
        f'head: pick={pick} needs input_ids, and only outputs of the tower are given. '
        'Expected input_ids as well.'
      )
    place_B = jnp.argmax(ids_BT if pick == 'largest' else ids_BT == pick, 1)
  elif pick == 'last':
    place_B = T - 1 - jnp.argmax(real_BT[:, ::-1], 1)
  else:
    place_B = jnp.argmax(real_BT, 1) + (pick == 'second')
  return jnp.take_along_axis(x_BTD, place_B[:, None, None], 1)[:, 0]


def _only_mixers(tower: HeadTower) -> bool:
  """Return whether tokens attend to each other, and get no information from other towers."""
  mixes = any(block.mixer is not None for segment in tower.segments for block in segment.pattern)
  return mixes and not tower.reads_towers


def select_stream(
  x_BTD: jax.Array, info: TokenInfo, index: int, count: int
) -> tuple[jax.Array, TokenInfo]:
  """Return the vectors and token info of one interleaved stream.

  Args:
    x_BTD: vectors of all streams.
    info: their token info.
    index: index of the stream.
    count: number of streams.

  Returns:
    Vectors `[B, T / count, D]` and their token info.
  """
  return jax.tree.map(lambda a: a[:, index::count], (x_BTD, info))


def normalize(x: jax.Array) -> jax.Array:
  """Return `x` scaled to unit length along the last axis; zero vectors are unchanged."""
  f = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  squared = jnp.sum(f * f, -1, keepdims=True)
  return (f * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))).astype(x.dtype)


def _mean(x_BTD: jax.Array, kept_BT: jax.Array) -> jax.Array:
  share_BT = kept_BT / jnp.maximum(jnp.sum(kept_BT, 1, keepdims=True), 1)
  return jnp.einsum('BT,BTD->BD', share_BT.astype(x_BTD.dtype), x_BTD)
