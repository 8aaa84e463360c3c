"""Weights of bitsandbytes: int8 (arXiv:2208.07339), and NF4 or FP4 (QLoRA, arXiv:2305.14314)."""

import json
import math

import numpy as np

from tfm.core import errors
from tfm.hub.quantized.lazy_weights import LazyMatrix, Parts, Quantized
from tfm.hub.tensors import Entry

_STATE = '.quant_state.bitsandbytes__'
_PARTS = ('.absmax', '.quant_map', '.nested_absmax', '.nested_quant_map')


def read(checkpoint: Quantized) -> dict[str, Entry]:
  """Return the tensors of a checkpoint with bitsandbytes weights dequantized."""
  tensors, _, dtype, where = checkpoint
  found = dict(tensors.entries)
  for name in [n for n in tensors if n.endswith('.SCB')]:
    _int8(found, name.removesuffix('.SCB'), dtype, where)
  for name in [n for n in tensors if _STATE in n]:
    _four_bits(found, name, dtype, where)
  return found


def _int8(found: dict[str, Entry], module: str, dtype: np.dtype, where: str) -> None:
  """Dequantize an int8 weight: each row times its largest absolute value, divided by 127."""
  parts = Parts(dict(found), ('.SCB', '.weight', '.weight_format'), where)
  numbers, largest = parts.need(module, '.weight'), found.pop(f'{module}.SCB')
  layout = parts.get(module, '.weight_format')
  found.pop(f'{module}.weight_format', None)
  if numbers.dtype != np.int8 or largest.shape != numbers.shape[:1]:
    parts.refuse(
      f'{module}.weight is {numbers.dtype} {list(numbers.shape)}',
      f'int8 with {list(largest.shape)} rows, as SCB',
    )
  if layout is not None and np.any(layout.array()):
    parts.refuse(
      f'{module}.weight_format is {layout.array().tolist()}', '0, for a row-major matrix'
    )

  def make(part: slice) -> np.ndarray:
    scale = largest.array()[part].astype(np.float32)[:, None]
    return numbers.array()[part].astype(np.float32) * scale * np.float32(1 / 127)

  found[f'{module}.weight'] = LazyMatrix(numbers.shape, dtype, make, [numbers, largest])


def _four_bits(found: dict[str, Entry], name: str, dtype: np.dtype, where: str) -> None:
  """Dequantize a 4-bit weight: table entries times the largest absolute value of a block."""
  weight, _, kind = name.partition(_STATE)
  try:
    state = json.loads(bytes(found.pop(name).array().view(np.uint8)))
    shape, block = tuple(state['shape']), int(state['blocksize'])
  except (ValueError, KeyError, TypeError) as error:
    raise errors.UserError(
      f'{where}: {name}: is not a quantization state ({error}). Expected JSON with shape and '
      'blocksize.'
    ) from error
  if kind not in ('nf4', 'fp4'):
    raise errors.UserError(
      f'{where}: {weight}: {errors.unknown("quant_type", kind, ("nf4", "fp4"))}'
    )
  parts = Parts(dict(found), ('', *_PARTS), where)
  packed, table = parts.need(weight, ''), parts.need(weight, '.quant_map')
  largest = parts.need(weight, '.absmax')
  nested: dict[str, Entry] = {}
  if 'nested_blocksize' in state:
    nested = {ending: parts.need(weight, ending) for ending in _PARTS[2:]}
  size, stored = math.prod(shape), math.prod(packed.shape) * packed.dtype.itemsize
  if stored != -(-size // 2) or math.prod(largest.shape) != -(-size // block):
    parts.refuse(
      f'{weight} is {stored} bytes with {math.prod(largest.shape)} block scales',
      f'{-(-size // 2)} bytes and {-(-size // block)} scales',
    )
  blocks, step = math.prod(largest.shape), block if block % 2 == 0 else 2 * block
  for ending in _PARTS:
    found.pop(f'{weight}{ending}', None)

  def block_scales(start: int, stop: int) -> np.ndarray:
    """Return the scales of some blocks, dequantized if they are quantized themselves."""
    stored = largest.array().reshape(-1)[start:stop]
    if not nested:
      return stored.astype(np.float32)
    scales = nested['.nested_quant_map'].array().astype(np.float32)[stored]
    outer = nested['.nested_absmax'].array().astype(np.float32)
    scales *= outer[np.arange(start, stop) // state['nested_blocksize']]
    return scales + np.float32(state['nested_offset'])

  def make(part: slice) -> np.ndarray:
    columns = shape[-1]
    first, last = part.start * columns, part.stop * columns
    # Read full blocks and bytes around the rows. The high bits of a byte are the first number.
    start, stop = first // step, -(-last // step)
    numbers = packed.array().reshape(-1).view(np.uint8)[start * step // 2 : stop * step // 2]
    values = _pairs(table.array())[numbers].reshape(-1)
    scales = block_scales(start * step // block, min(-(-stop * step // block), blocks))
    values *= np.repeat(scales, block)[: len(values)]
    return values[first - start * step : last - start * step].reshape(-1, columns)

  found[weight] = LazyMatrix(shape, dtype, make, [packed, table, largest, *nested.values()])


def _pairs(table: np.ndarray) -> np.ndarray:
  """Return the two numbers of each byte, from the high bits and the low bits, `[256, 2]`."""
  byte, values = np.arange(256), table.astype(np.float32)
  return np.stack([values[byte >> 4], values[byte & 15]], axis=-1)
