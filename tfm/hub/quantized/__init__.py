"""Dequantize quantized checkpoints on reading.

The field `quantization_config` of config.json names the format. Loaded parameters and exported
folders are not quantized. To add a format, write a reader in a new file and add it to `METHODS`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike
import numpy as np

from tfm.core import errors
from tfm.hub.quantized import bitnet, bitsandbytes, compressed, fp8, gptq, mlx, mxfp4
from tfm.hub.quantized.lazy_weights import Quantized
from tfm.hub.tensors import Entry, Tensors

#: Returns all tensors of a checkpoint by name, with weights dequantized. Raises a `UserError` if an
#: option is not supported or tensors are inconsistent.
Reader = Callable[[Quantized], dict[str, Entry]]

#: `quant_method` -> the reader of the format. MLX's configs have no method.
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

#: Models with weights `[in, out]`. The layout of their quantized weights is ambiguous.
_TRANSPOSED = ('gpt2', 'openai-gpt')


def dequantized(
  tensors: Tensors, config: Mapping[str, Any], dtype: DTypeLike | None, where: str
) -> Tensors:
  """Return the tensors of a checkpoint with quantized weights dequantized on access.

  Args:
    tensors: The stored tensors.
    config: The fields of config.json.
    dtype: The dtype of dequantized weights. Each number is rounded once. None uses the dtype in the
      config, else bfloat16.
    where: The path of the config, for errors.

  Returns:
    The tensors, with each dequantized weight under the name of the original weight.

  Raises:
    UserError: The format or an option is not supported, or tensors are inconsistent.
  """
  options = config.get('quantization_config') or config.get('quantization')
  if not options:
    return tensors
  dtype = dtype or config.get('dtype') or config.get('torch_dtype') or 'bfloat16'
  checkpoint = Quantized(tensors, options, np.dtype(jnp.dtype(dtype)), where)
  method = options.get('quant_method')
  if method is None and 'group_size' in options:
    return _check_dequantized(mlx.read(checkpoint), where)
  if method not in METHODS:
    unknown = errors.unknown('quant_method', method, METHODS)
    raise errors.UserError(
      f'{where}: quantization_config: {unknown} Expected a known method, or the original model.'
    )
  if config.get('model_type') in _TRANSPOSED:
    raise errors.UserError(
      f'{where}: quantization_config: quantized weights of {config["model_type"]} are not '
      'supported, because the order of their axes is ambiguous. Expected the original model.'
    )
  return _check_dequantized(METHODS[method](checkpoint), where)


def _check_dequantized(found: Mapping[str, Entry], where: str) -> Tensors:
  """Return the tensors after a check that all weights are dequantized.

  Raises:
    UserError: A weight lacks its scales.
  """
  for name, entry in found.items():
    if name.endswith('.weight') and (entry.dtype.kind in 'iu' or entry.dtype.itemsize == 1):
      raise errors.UserError(
        f'{where}: {name} is {entry.dtype} and has no scales. Expected all tensors of the format.'
      )
  return Tensors(found)
