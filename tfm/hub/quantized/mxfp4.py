"""MXFP4 experts of GPT-OSS, in the OCP Microscaling Formats v1.0."""

from collections.abc import Iterator
import dataclasses

import ml_dtypes
import numpy as np

from tfm.core import errors
from tfm.hub.quantized.lazy_weights import Quantized
from tfm.hub.tensors import Entry

#: The number of values in a chunk.
_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class _Mxfp4:
  """The lazy matrices `[E, in, out]` of the experts.

  Each byte holds two E2M1 numbers, the first in the low bits. Blocks of 32 numbers along the inputs
  have a common E8M0 scale, a power of two.

  Attributes:
    blocks: The numbers, bytes `[E, out, in / 32, 16]`.
    scales: The scales, bytes `[E, out, in / 32]`.
    dtype: The dtype of the result.
  """

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


def read(checkpoint: Quantized) -> dict[str, Entry]:
  """Return the tensors of a checkpoint with MXFP4 experts dequantized."""
  tensors, _, dtype, where = checkpoint
  found: dict[str, Entry] = dict(tensors.entries)
  for name in tensors:
    if not name.endswith('_blocks'):
      continue
    stem = name.removesuffix('_blocks')
    blocks, scales = found.pop(name), found.pop(f'{stem}_scales', None)
    shape = blocks.shape
    is_bytes = scales is not None and {blocks.dtype, scales.dtype} == {np.dtype(np.uint8)}
    if scales is None or not is_bytes or shape[3:] != (16,) or scales.shape != shape[:-1]:
      other = 'missing' if scales is None else f'{scales.dtype} {list(scales.shape)}'
      raise errors.UserError(
        f'{where}: {name} is {blocks.dtype} {list(shape)}, and {stem}_scales is {other}. Expected '
        'uint8 [experts, out, in / 32, 16] and scales [experts, out, in / 32].'
      )
    found[stem] = _Mxfp4(blocks, scales, dtype)
  return found


#: The two numbers of each byte: a sign bit, two exponent bits and a mantissa bit.
_E2M1 = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)
_PAIRS = np.stack([_E2M1[np.arange(256) & 15], _E2M1[np.arange(256) >> 4]], axis=-1)
