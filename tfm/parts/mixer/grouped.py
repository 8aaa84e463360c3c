"""Attention with block-diagonal projections (SqueezeBERT)."""

import dataclasses
from typing import ClassVar

from tfm.parts.context import Dims
from tfm.parts.grouped_dense import grouped, misfits
from tfm.parts.mixer.attention import Attention, _Attention


@dataclasses.dataclass(frozen=True)
class GroupedAttention(Attention):
  """Attention with grouped projections, as convolutions of width 1 (arXiv:2006.11316).

  A projection takes 1 / groups of the weights and FLOPs of a full one.

  Attributes:
    q_groups: number of diagonal blocks of the projection of queries.
    k_groups: number of diagonal blocks of the projection of keys.
    v_groups: number of diagonal blocks of the projection of values.
    o_groups: number of diagonal blocks of the output projection.
  """

  q_groups: int = dataclasses.field(default=4, kw_only=True)
  k_groups: int = dataclasses.field(default=4, kw_only=True)
  v_groups: int = dataclasses.field(default=4, kw_only=True)
  o_groups: int = dataclasses.field(default=1, kw_only=True)

  joined: ClassVar[tuple[tuple[str, ...], ...]] = ()

  def make(self, dims):
    return _Grouped(self, dims)

  def fits(self, d_model):
    yield from super().fits(d_model)
    N, K, H = self.sizes(d_model)
    for name, heads in {'q': N, 'k': K, 'v': K, 'o': N}.items():
      if message := misfits(f'{name}_groups', getattr(self, f'{name}_groups'), d_model, heads * H):
        yield message

  def flops(self, d_model, pairs):
    N, K, H = self.sizes(d_model)
    projected = N / self.q_groups + K / self.k_groups + K / self.v_groups + N / self.o_groups
    return 2 * d_model * H * (projected + N * self.gated) + 4 * pairs * N * H


class _Grouped(_Attention):
  spec: GroupedAttention

  def project(self, letters: str, shape: tuple[int, ...], dims: Dims, name: str, n_in: int = 1):
    groups = getattr(self.spec, f'{name}_groups')
    return grouped(letters, shape, dims, name, groups, n_in, name in self.spec.bias)
