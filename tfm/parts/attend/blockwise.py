"""Blockwise (flash) attention in plain JAX, with memory linear in the sequence length."""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from tfm.core.closures import convert
from tfm.parts.attend.base import Attend, scores_fit
from tfm.parts.attend.tiles import (
  Operands,
  Problem,
  forward,
  gradients,
  operands,
  tile_sizes,
  tiles,
  untiled,
)
from tfm.parts.attend.views import attend_views, useful_views
from tfm.parts.stored_names import named
from tfm.parts.term import sum_terms


@dataclasses.dataclass(frozen=True)
class Blockwise(Attend):
  """Flash attention in plain JAX, tile by tile (arXiv:2205.14135, arXiv:2307.08691).

  It keeps a running maximum and sum per query. Tiles that are masked out in every sequence are
  skipped, forward and backward. So causal attention costs half, a window its band, and packed
  documents their squares. Long sequences are sorted into the order of `Mask.views`, so that
  strided, fixed and dilated masks also cost about their allowed pairs.

  A pair in a computed tile costs 4 N H FLOPs forward and 10 N H backward, which recomputes the
  scores. Memory is B N (T H + queries keys) numbers, and B N T H more for each further view.

  Attributes:
    queries: the number of queries in a tile.
    keys: the number of keys in a tile.
  """

  queries: int = 256
  keys: int = 256

  def check(self) -> Iterator[str]:
    if self.queries < 1 or self.keys < 1:
      yield f'queries={self.queries}, keys={self.keys} must be positive. Expected at least 1.'

  def loses(self, platform, B, N, T, S):
    if scores_fit(platform, B, N, T, S):
      return f'{B * N * T * S:,} scores fit into memory, and a dense kernel is faster'
    return None

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    views = useful_views(scores.mask, q_BTNH.shape[1] / self.queries)
    return attend_views(self._summed, views, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce)

  def _summed(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    """Return y_BTNH and the log-sum-exp lse_BTN of one view."""
    B, T, N, H = q_BTNH.shape
    S, K = k_BSKH.shape[1:3]
    sizes = size, width = tile_sizes(self.queries, self.keys, T, S)
    q_info, k_info = tiles(q, size), tiles(k, width)
    tile = (jax.tree.map(lambda a: a[0], q_info), jax.tree.map(lambda a: a[0], k_info))
    of_bias, bias = _lift(scores.offsets, *tile)
    heads = jnp.zeros((B, size, N, H), q_BTNH.dtype), jnp.zeros((B, width, K, H), k_BSKH.dtype)
    of_content, content = _lift(tuple(map(sum_terms, scores.contents)), *heads, *tile)
    problem = Problem(scores, bias, content, S, K, jnp.dtype(reduce))
    x = operands(q_BTNH, k_BSKH, v_BSKH, (of_bias, of_content), scores, sizes, reduce)
    y, lse = _flash(problem)(x, q_info, k_info, scores.drop)
    return untiled(y, T), untiled(lse, T)[..., 0]


def _flash(problem: Problem) -> Callable[..., jax.Array]:
  """Return the kernel with a custom gradient; autodiff of the loop would store every tile's scores.

  The kernel maps (operands, query infos, key infos, dropout) to y `[tiles, B, K, G, queries, H]`
  and the log-sum-exp `[..., 1]`.
  """

  @jax.custom_vjp
  def flash(x: Operands, q_info, k_info, drop):
    return run(x, q_info, k_info, drop)[0]

  def run(x, q_info, k_info, drop):
    y, lse, visits = forward(problem, x, q_info, k_info, drop)
    y, lse = named(y.astype(x.v.dtype), 'attention'), named(lse, 'attention')
    return (y, lse), (x, q_info, k_info, drop, y, lse, visits)

  def backward(residuals, g):
    x, q_info, k_info, drop, *results = residuals
    sums = gradients(problem, x, q_info, k_info, drop, results, g)
    return jax.tree.map(lambda sum, of: sum.astype(of.dtype), sums, x), None, None, None

  flash.defvjp(run, backward)
  return flash


def _lift(
  functions: tuple[Callable[..., jax.Array], ...], *tile: Any
) -> tuple[list[jax.Array], Any]:
  """Return the sum of `functions` as a function of the float arrays that they close over.

  The custom gradient of `_flash` covers only its arguments, so these arrays must become arguments.
  Returns (arrays, function of the arrays and a tile).
  """
  if not functions:
    return [], None
  pure, smooth, fixed = convert(lambda *tile: sum(function(*tile) for function in functions), *tile)
  return smooth, lambda smooth, *tile: pure(smooth, fixed, *tile)
