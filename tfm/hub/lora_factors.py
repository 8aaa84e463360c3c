"""The factors of LoRA between Hugging Face's layout, `B A` with A `[rank, in]` and B `[out, rank]`,
and tfm's.
"""

from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

import numpy as np

from tfm.zoo.weights.family import Tensor
from tfm.zoo.weights.rules import Conv, Fused, InProj, Linear, Slot


class Factors(NamedTuple):
  """x A B of one projection: `a` is `[*inputs, rank]`, `b` is `[rank, *outputs]`."""

  a: np.ndarray
  b: np.ndarray


def is_linear(tensor: Tensor) -> bool:
  """Return whether a tensor is the weight of a linear layer, of one projection of tfm or of several
  fused ones.
  """
  known = type(tensor.rule) in (Linear, Conv) or (
    isinstance(tensor.rule, Fused) and not isinstance(tensor.rule, InProj)
  )
  return known and all(slot.n_in for slot in tensor.slots)


def inputs_first(tensor: Tensor) -> bool:
  """Return whether Hugging Face keeps the weight as `[in, out]` (GPT-2's Conv1D)."""
  return isinstance(tensor.rule, Conv) or bool(getattr(tensor.rule, 'conv', False))


def split_factors(tensor: Tensor, a: np.ndarray, b: np.ndarray) -> list[Factors]:
  """Return the factors of each projection of a tensor; fused projections get copies of A.

  Args:
    tensor: the weight, a linear layer.
    a: `[rank, in]`.
    b: `[out, rank]`.
  """
  narrow = [_narrow(slot, len(a)) for slot in tensor.slots]
  parts = tensor.rule.cut(b.T if inputs_first(tensor) else b, narrow)
  inputs = [a.T.reshape(*slot.shape[: slot.n_in], len(a)) for slot in tensor.slots]
  return [Factors(*each) for each in zip(inputs, parts, strict=True)]


def join_factors(
  tensor: Tensor, factors: Sequence[Factors | None]
) -> tuple[np.ndarray, np.ndarray]:
  """Return A and B of a tensor from the factors of its projections. Ranks of fused projections add
  up.

  Args:
    tensor: the weight, a linear layer.
    factors: of each projection, None if it is not adapted.
  """
  rows, columns = [], []
  for i, own in enumerate(factors):
    if own is None:
      continue
    rank = len(own.b)
    narrow = [_narrow(slot, rank) for slot in tensor.slots]
    parts = [
      own.b if i == j else np.zeros(slot.shape, own.b.dtype) for j, slot in enumerate(narrow)
    ]
    joined = tensor.rule.join(parts, narrow)
    rows.append(own.a.reshape(-1, rank).T)
    columns.append(joined.T if inputs_first(tensor) else joined)
  return np.concatenate(rows), np.concatenate(columns, axis=1)


def _narrow(slot: Slot, rank: int) -> Slot:
  """Return the slot of a projection from `rank` inputs to the outputs of another one."""
  return dataclasses.replace(slot, shape=(rank, *slot.shape[slot.n_in :]), n_in=1)
