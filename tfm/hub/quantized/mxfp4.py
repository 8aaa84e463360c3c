"""Experts of four bits in GPT-OSS: OCP Microscaling Formats v1.0."""

from collections.abc import Iterator, Mapping
import dataclasses
from typing import Any

import ml_dtypes
import numpy as np

from tfm.core import errors
from tfm.hub.tensors import Entry, Tensors

#: Numbers in a chunk.
_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class _Mxfp4:
  """Matrices of experts in GPT-OSS: numbers of four bits, E2M1, two a byte, the lower bits first.

  OCP Microscaling Formats v1.0: 32 numbers along the inputs share a power of two, E8M0. `blocks` is
  `[E, out, in / 32, 16]` and `scales` `[E, out, in / 32]`, both bytes; the result is `[E, in,
  out]`."""

  blocks: Entry
  scales: Entry
  dtype: np.dtype

  @property
  def shape(self) -> tuple[int, ...]:
    experts, outs, blocks, size = self.blocks.shape
    return experts, 2 * size * blocks, outs

  def array(self) -> np.ndarray:
    return np.concatenate(list(self.chunks()))

  def chunks(self) -> Iterator[np.ndarray]:
    blocks, scales = self.blocks.array(), self.scales.array().view(ml_dtypes.float8_e8m0fnu)
    _, D, F = self.shape
    step = max(1, _CHUNK // D)
    for e in range(len(blocks)):
      out = np.empty((F, D), self.dtype)
      for rows in (slice(i, i + step) for i in range(0, F, step)):
        numbers = _PAIRS[blocks[e, rows]].reshape(*scales[e, rows].shape, -1)
        numbers *= scales[e, rows].astype(np.float32)[..., None]
        out[rows] = numbers.reshape(-1, D)
      yield out.T[None]
      del out

  def release(self) -> None:
    self.blocks.release()
    self.scales.release()


def read(
  tensors: Tensors, options: Mapping[str, Any], dtype: np.dtype, where: str
) -> dict[str, Entry]:
  """Return the tensors with every matrix of experts in MXFP4 as numbers.

  Raises:
    UserError: the tensors do not fit together.
  """
  found: dict[str, Entry] = dict(tensors.entries)
  for name in tensors:
    if not name.endswith('_blocks'):
      continue
    stem = name.removesuffix('_blocks')
    blocks, scales = found.pop(name), found.pop(f'{stem}_scales', None)
    shape = blocks.shape
    bytes_ = scales is not None and {blocks.dtype, scales.dtype} == {np.dtype(np.uint8)}
    if scales is None or not bytes_ or shape[3:] != (16,) or scales.shape != shape[:-1]:
      other = 'missing' if scales is None else f'{scales.dtype} {list(scales.shape)}'
      raise errors.UserError(
        f'{where}: {name} is {blocks.dtype} {list(shape)}, and {stem}_scales is {other}. Expected '
        f'uint8 '
        '[experts, out, in / 32, 16] and, without the last axis, its scales.'
      )
    found[stem] = _Mxfp4(blocks, scales, dtype)
  return found


#: Two numbers for each byte: sign, two bits of exponent, one of mantissa.
_E2M1 = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)
_PAIRS = np.stack([_E2M1[np.arange(256) & 15], _E2M1[np.arange(256) >> 4]], axis=-1)
