"""Convert LoRA factors between the layouts of PEFT and tfm.

PEFT stores A `[rank, in]` and B `[out, rank]` for each linear layer, with the update B A.
"""

from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

import numpy as np

from tfm.zoo.weights.family import Tensor
from tfm.zoo.weights.rules import Conv, Fused, InProj, Linear, Slot


class Factors(NamedTuple):
  """The LoRA factors of one projection in tfm's layout, with the update x A B.

  Attributes:
    a: `[*inputs, rank]`.
    b: `[rank, *outputs]`.
  """

  a: np.ndarray
  b: np.ndarray


def is_linear(tensor: Tensor) -> bool:
  """Return whether a tensor is the weight of one linear layer or of several fused ones."""
  is_fused = isinstance(tensor.rule, Fused) and not isinstance(tensor.rule, InProj)
  is_known = type(tensor.rule) in (Linear, Conv) or is_fused
  return is_known and all(slot.n_in for slot in tensor.slots)


def inputs_first(tensor: Tensor) -> bool:
  """Return whether Hugging Face stores the weight as `[in, out]` (GPT-2's Conv1D)."""
  return isinstance(tensor.rule, Conv) or bool(getattr(tensor.rule, 'conv', False))


def split_factors(tensor: Tensor, a: np.ndarray, b: np.ndarray) -> list[Factors]:
  """Return the factors of each projection of a tensor. Fused projections share A.

  Args:
    tensor: The weight of a linear layer.
    a: PEFT's A, `[rank, in]`.
    b: PEFT's B, `[out, rank]`.

  Returns:
    The factors in tfm's layout, one for each slot of the tensor.
  """
  narrow = [_narrow(slot, len(a)) for slot in tensor.slots]
  parts = tensor.rule.cut(b.T if inputs_first(tensor) else b, narrow)
  inputs = [a.T.reshape(*slot.shape[: slot.n_in], len(a)) for slot in tensor.slots]
  return [Factors(*each) for each in zip(inputs, parts, strict=True)]


def join_factors(
  tensor: Tensor, factors: Sequence[Factors | None]
) -> tuple[np.ndarray, np.ndarray]:
  """Return PEFT's A and B of a tensor. The ranks of fused projections add up.

  Args:
    tensor: The weight of a linear layer.
    factors: The factors of each projection in tfm's layout, None if it is not adapted.

  Returns:
    A `[rank, in]` and B `[out, rank]`.
  """
  rows, columns = [], []
  for i, each in enumerate(factors):
    if each is None:
      continue
    rank = len(each.b)
    narrow = [_narrow(slot, rank) for slot in tensor.slots]
    parts = [np.zeros(slot.shape, each.b.dtype) for slot in narrow]
    parts[i] = each.b
    joined = tensor.rule.join(parts, narrow)
    rows.append(each.a.reshape(-1, rank).T)
    columns.append(joined.T if inputs_first(tensor) else joined)
  return np.concatenate(rows), np.concatenate(columns, axis=1)


def _narrow(slot: Slot, rank: int) -> Slot:
  """Return the slot of a projection from `rank` inputs to the same outputs."""
  return dataclasses.replace(slot, shape=(rank, *slot.shape[slot.n_in :]), n_in=1)
