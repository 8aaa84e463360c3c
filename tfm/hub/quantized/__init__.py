"""Quantized checkpoints, dequantized on reading. A new format is a new file and a new row.

`quantization_config` names the format. Parameters are never kept quantized, and exported folders
are not quantized."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from tfm.core import errors
from tfm.hub.quantized import bitnet, bitsandbytes, compressed, fp8, gptq, mlx, mxfp4
from tfm.hub.tensors import Entry, Tensors

Reader = Callable[[Tensors, Mapping[str, Any], np.dtype, str], dict[str, Entry]]

#: `quant_method` -> the reader of the format. MLX writes no method.
METHODS: dict[str, Reader] = {
  'mxfp4': mxfp4.read,
  'fp8': fp8.read,
  'fbgemm_fp8': fp8.read_rows,
  'gptq': gptq.read_gptq,
  'awq': gptq.read_awq,
  'bitsandbytes': bitsandbytes.read,
  'bitnet': bitnet.read,
  'compressed-tensors': compressed.read,
}

#: Models with weights `[in, out]`. Programs disagree on the layout of their quantized weights.
_TRANSPOSED = ('gpt2', 'openai-gpt')


def dequantized(
  tensors: Tensors, config: Mapping[str, Any], dtype: Any | None, where: str
) -> Tensors:
  """Return the tensors of a checkpoint, with quantized weights dequantized under the name of the
  weight.

  Args:
    tensors: the stored tensors.
    config: the values of config.json.
    dtype: of the dequantized tensors; each number is rounded once. None: the dtype of the config,
    or bfloat16.
    where: the config, for errors.

  Raises:
    UserError: the format or one of its options is not read, or the tensors do not fit together.
  """
  said = config.get('quantization_config') or config.get('quantization')
  if not said:
    return tensors
  kind = np.dtype(
    jnp.dtype(dtype or config.get('dtype') or config.get('torch_dtype') or 'bfloat16')
  )
  method = said.get('quant_method')
  if method is None and 'group_size' in said:
    return _whole(mlx.read(tensors, said, kind, where), where)
  if method not in METHODS:
    unknown = errors.unknown('quant_method', method, METHODS)
    raise errors.UserError(
      f'{where}: quantization_config: {unknown} Expected a known method, or the original model.'
    )
  if config.get('model_type') in _TRANSPOSED:
    raise errors.UserError(
      f'{where}: quantization_config: quantized weights of {config["model_type"]} are not read, as '
      f'programs '
      'disagree on the order of their axes. Expected the original model.'
    )
  return _whole(METHODS[method](tensors, said, kind, where), where)


def _whole(found: Mapping[str, Entry], where: str) -> Tensors:
  """Return tensors of which no weight is still quantized.

  Raises:
    UserError: a weight has lost its scales.
  """
  for name, entry in found.items():
    if name.endswith('.weight') and (entry.dtype.kind in 'iu' or entry.dtype.itemsize == 1):
      raise errors.UserError(
        f'{where}: {name} is {entry.dtype} and has no scales. Expected all tensors of its format.'
      )
  return Tensors(found)
