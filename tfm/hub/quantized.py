"""Tensors that a checkpoint keeps in fewer bits, as the numbers that they stand for, made where they are looked at.

`quantization_config` says how: `mxfp4` (GPT-OSS) or `fp8` (DeepSeek-V3, and Llama's kin). Nothing is computed in fewer
bits here, and what is exported is not quantized.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from tfm.core import errors
from tfm.hub.tensors import Entry, Tensors

#: Numbers that are made at a time.
_CHUNK = 1 << 20

#: How a model comes by weights that are read here, by what they are quantized with.
_INSTEAD = {
  'bitsandbytes': 'what transformers writes: from_pretrained(...).dequantize() and save_pretrained(new).',
  'compressed-tensors': 'what transformers writes: from_pretrained(..., quantization_config='
  'CompressedTensorsConfig(run_compressed=False)) and save_pretrained(new).',
}


def dequantized(tensors: Tensors, config: Mapping[str, Any], dtype: Any | None, where: str) -> Tensors:
  """The tensors of a checkpoint with every quantized one as numbers, under the name that it has without.

  They are of `dtype` (None: the one that the config names, or bfloat16), each rounded to it once.

  Raises: UserError for a way to quantize that is not known, or whose tensors do not fit together.
  """
  said = config.get('quantization_config')
  if not said:
    return tensors
  method = said.get('quant_method')
  if method not in _METHODS:
    instead = _INSTEAD.get(method, 'the model that it was quantized from.')
    raise errors.UserError(
      f'{where}: quantization_config: {errors.unknown("quant_method", method, _METHODS)} Wanted {instead}'
    )
  kind = np.dtype(jnp.dtype(dtype or config.get('dtype') or config.get('torch_dtype') or 'bfloat16'))
  return Tensors(_METHODS[method](tensors, said, kind, where))


@dataclasses.dataclass(frozen=True)
class _Mxfp4:
  """Matrices of experts as GPT-OSS keeps them: numbers of four bits, E2M1, two a byte, the lower bits first.

  OCP Microscaling Formats v1.0: 32 numbers along the inputs share a power of two, E8M0. `blocks` is
  `[E, out, in / 32, 16]` and `scales` `[E, out, in / 32]`, both bytes; what they stand for is `[E, in, out]`.
  """

  blocks: Entry
  scales: Entry
  dtype: np.dtype

  @property
  def shape(self) -> tuple[int, ...]:
    experts, outs, blocks, size = self.blocks.shape
    return experts, 2 * size * blocks, outs

  def array(self) -> np.ndarray:
    return np.concatenate(list(self.slabs()))

  def slabs(self) -> Iterator[np.ndarray]:
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

  def forget(self) -> None:
    self.blocks.forget()
    self.scales.forget()


@dataclasses.dataclass(frozen=True)
class _Scaled:
  """Numbers of eight bits times their block's number in `scale`; blocks at the ends may be cut short."""

  numbers: Entry
  scale: Entry
  block: tuple[int, int]
  dtype: np.dtype

  @property
  def shape(self) -> tuple[int, ...]:
    return self.numbers.shape

  def array(self) -> np.ndarray:
    numbers, out = self.numbers.array(), np.empty(self.shape, self.dtype)
    (rows, columns), (height, width) = self.shape[-2:], self.block
    scale = self.scale.array().astype(np.float32)
    scale = scale.reshape(*self.shape[:-2], -(-rows // height), -(-columns // width))
    step = max(1, _CHUNK // columns)
    for at in np.ndindex(self.shape[:-2]):
      for start in range(0, rows, step):
        part = slice(start, min(start + step, rows))
        scales = scale[at][np.arange(part.start, part.stop) // height].repeat(width, -1)[:, :columns]
        out[at][part] = numbers[at][part].astype(np.float32) * scales
    return out

  def slabs(self) -> Iterator[np.ndarray]:
    yield self.array()

  def forget(self) -> None:
    self.numbers.forget()
    self.scale.forget()


def _mxfp4(tensors: Tensors, said: Mapping[str, Any], dtype: np.dtype, where: str) -> dict[str, Entry]:
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
        f'{where}: {name} is {blocks.dtype} {list(shape)}, and {stem}_scales is {other}. Wanted uint8 '
        '[experts, out, in / 32, 16] and, without the last axis, its scales.'
      )
    found[stem] = _Mxfp4(blocks, scales, dtype)
  return found


def _fp8(tensors: Tensors, said: Mapping[str, Any], dtype: np.dtype, where: str) -> dict[str, Entry]:
  for field, known in (('fmt', ('e4m3', None)), ('expert_dtype', ('fp8', None))):
    if said.get(field) not in known:
      raise errors.UserError(f'{where}: quantization_config: {field} is {said[field]!r}. Known: {known[0]!r}.')
  # How activations are rounded before they are multiplied: here they are not.
  rounded = ('.activation_scale', '.input_scale')
  found: dict[str, Entry] = {n: e for n, e in tensors.entries.items() if not n.endswith(rounded)}
  for name in tensors:
    if tensors.dtype(name) != ml_dtypes.float8_e4m3fn:
      continue
    scale = found.pop(f'{name}_scale_inv', None) or found.pop(f'{name}_scale', None)
    height, width = said.get('weight_block_size') or tensors.shape(name)[-2:]
    *lead, rows, columns = tensors.shape(name)
    wanted = [*lead, -(-rows // height), -(-columns // width)]
    if scale is None or (list(scale.shape) != wanted and math.prod(scale.shape) != math.prod(wanted)):
      other = 'missing' if scale is None else list(scale.shape)
      raise errors.UserError(
        f'{where}: {name} is float8 {list(tensors.shape(name))}, and {name}_scale_inv is {other}. Wanted {wanted}, one '
        f'a block of {height} x {width}.'
      )
    found[name] = _Scaled(tensors.entries[name], scale, (height, width), dtype)
  return found


_METHODS: dict[str, Callable[[Tensors, Mapping[str, Any], np.dtype, str], dict[str, Entry]]] = {
  'fp8': _fp8, 'mxfp4': _mxfp4,
}  # fmt: skip

#: The two numbers of each byte: sign, two bits of exponent, one of mantissa.
_E2M1 = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)
_PAIRS = np.stack([_E2M1[np.arange(256) & 15], _E2M1[np.arange(256) >> 4]], axis=-1)
