"""Attention over a sequence that is split over devices, by exchanging tokens for heads."""

import dataclasses
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.axes import constrained, device_count
from tfm.parts.attend.base import Attend
from tfm.parts.attend.blockwise import Blockwise
from tfm.parts.attend.split import sequence_axes

Rules = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Ulysses(Attend):
  """Attention in which each device exchanges its tokens for heads (arXiv:2309.14509).

  An all-to-all gives each device all tokens of some heads, `kernel` computes their attention, and
  a second all-to-all returns the tokens. It applies if the rules of the mesh split the axis T
  (`mesh.sequence`). Otherwise it is `kernel`.

  The devices of the tensor and sequence axes together must divide the query heads. Fewer key/value
  heads than devices are repeated, up to the number of query heads.

  A device sends B T / n (2 N + 2 K) H numbers, the same backward, for n devices along the sequence.
  All devices have equal work, whatever the mask.

  Attributes:
    kernel: computes the attention of a device's heads.

  Raises:
    UserError: if the devices do not divide the heads.
  """

  kernel: Attend = Blockwise()

  def refuses(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores):
    T, N, K = q_BTNH.shape[1], q_BTNH.shape[2], k_BSKH.shape[2]
    names = sequence_axes(T)
    if not names:
      return None
    rules = _by_heads(names)
    for letter, heads in (('N', N), ('K', math.lcm(K, _ways(rules, 'K')))):
      if heads > N or heads % _ways(rules, letter) or N % heads:
        by = ' x '.join(rules[letter])
        return f'{N} query heads do not split over {_ways(rules, letter)} devices ({by})'
    if K % _ways(rules, 'K') and (scores.contents or scores.products):
      return f'{K} key/value heads cannot be repeated, since terms of the scores depend on them'
    return None

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    names = sequence_axes(q_BTNH.shape[1])
    if not names:
      return self.kernel(q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce)
    if (why := self.refuses(q_BTNH, k_BSKH, v_BSKH, q, k, scores)) is not None:
      raise errors.UserError(
        f'attend=ulysses: {why}. Expected attend=ring, which needs no heads to split.'
      )
    rules = _by_heads(names)
    repeats = math.lcm(k_BSKH.shape[2], _ways(rules, 'K')) // k_BSKH.shape[2]
    if repeats > 1:
      k_BSKH, v_BSKH = (jnp.repeat(a, repeats, axis=2) for a in (k_BSKH, v_BSKH))
    # Without these constraints XLA would project all tokens to some heads, and gather the tokens.
    q_BTNH = constrained(q_BTNH, 'BTNH')
    k_BSKH, v_BSKH = (constrained(a, 'BTKH') for a in (k_BSKH, v_BSKH))
    with nn.logical_axis_rules([*rules.items()]):
      q_BTNH = constrained(q_BTNH, 'BTNH')
      k_BSKH, v_BSKH = (constrained(a, 'BTKH') for a in (k_BSKH, v_BSKH))
      # Masks and biases of all tokens come from the infos of all tokens, which are small.
      q, k = jax.tree.map(_whole, (q, k))
      y_BTNH = self.kernel(q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce)
      y_BTNH = constrained(y_BTNH, 'BTNH')
    return constrained(y_BTNH, 'BTNH')


def _by_heads(names: tuple[str, ...]) -> Rules:
  """Return the rules in force, with heads instead of tokens over the mesh axes `names`."""
  rules: Rules = dict(nn.get_logical_axis_rules())
  heads = {letter: (*rules.get(letter, ()), *names) for letter in 'NK'}
  return {**rules, 'T': (), **heads}


def _whole(a: jax.Array) -> jax.Array:
  """Return an array of token info with all tokens on every device."""
  batch = '-' if a.shape[0] == 1 else 'B'
  return constrained(a, batch + '-' * (a.ndim - 1))


def _ways(rules: Rules, letter: str) -> int:
  return device_count(rules[letter])
