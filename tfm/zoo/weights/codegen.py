"""Checkpoints of CodeGen: q, v and k are fused in four shares, one per training device."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from tfm.zoo import gptj as model
from tfm.zoo.weights import gptj
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Fused, Slot


@dataclasses.dataclass(frozen=True)
class FusedShares(Fused):
  """Several projections as one tensor, interleaved in `shares` equal parts of their outputs.

  Attributes:
    shares: number of parts.
  """

  shares: int = 4

  def parts(self, rows: np.ndarray, slots: Sequence[Slot]) -> list[np.ndarray]:
    pieces = rows.reshape(self.shares, len(slots), -1, *rows.shape[1:])
    return [pieces[:, i].reshape(-1, *rows.shape[1:]) for i in range(len(slots))]

  def fuse(self, parts: Sequence[np.ndarray], slots: Sequence[Slot]) -> np.ndarray:
    rest = parts[0].shape[1:]
    return np.stack([part.reshape(self.shares, -1, *rest) for part in parts], 1).reshape(-1, *rest)


_OWN: Names = {
  ('*/mixer/q', '*/mixer/v', '*/mixer/k'): FusedShares('transformer.h.*.attn.qkv_proj')
}
NAMES: Names = {
  **{o: t for o, t in gptj.NAMES.items() if o not in ('*/mixer/q', '*/mixer/k', '*/mixer/v')},
  **_OWN,
}

FAMILY = Family('CodeGen', model.read, model.write, NAMES, 'transformer.', ignored=gptj.IGNORED)
