"""Tensors of files from `torch.save`, read without running code in them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tfm.core import errors
from tfm.hub.path_errors import check_not_pointer


def read_pickle(path: Path) -> dict[str, np.ndarray]:
  """Return the tensors of a file from `torch.save`, without running code in it.

  Raises:
    UserError: PyTorch is not installed, the file holds other objects, or a tensor is sparse,
      quantized or otherwise no array of plain numbers.
  """
  check_not_pointer(path)
  try:
    import torch
  except ImportError:
    raise errors.UserError(
      f'{path}: is a pickle, and PyTorch, which reads it safely, is not installed. Expected '
      'safetensors: convert it elsewhere with '
      'safetensors.torch.save_file(torch.load(path, weights_only=True), new).'
    ) from None
  try:
    found = torch.load(path, map_location='cpu', weights_only=True)
  except Exception as error:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    raise errors.UserError(
      f'{path}: is damaged, or holds other objects than tensors: {reason}. Expected a state dict.'
    ) from error
  if not isinstance(found, Mapping):
    raise errors.UserError(f'{path}: holds a {type(found).__name__}. Expected a state dict.')
  tensors = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
  for problem in _problems(found, tensors):
    raise errors.UserError(f'{path}: {problem}')
  return {name: _numpy(tensor.detach()) for name, tensor in tensors.items()}


def _problems(found: Mapping[Any, Any], tensors: Mapping[Any, Any]) -> Iterator[str]:
  """Yield a sentence for each entry of a state dict that cannot be read as an array."""
  import torch

  if named := [name for name in found if not isinstance(name, str)]:
    yield f'an entry has the name {named[0]!r:.60}. Expected names of type str.'
  for name, value in found.items():
    nested = value.values() if isinstance(value, Mapping) else value
    is_group = isinstance(value, (list, tuple)) or (isinstance(value, Mapping) and not tensors)
    if is_group and any(isinstance(item, torch.Tensor) for item in nested):
      kind = type(value).__name__
      yield f'{name} is a {kind} of tensors. Expected a state dict, tensors by name.'
  for name, tensor in tensors.items():
    if kind := _kind(tensor):
      yield f'{name} is a {kind} tensor. Expected dense tensors of float32, bfloat16 or float16.'


def _kind(tensor: Any) -> str:
  """Return the kind of a tensor that NumPy cannot hold, or ''."""
  import torch

  if tensor.is_quantized:
    return f'quantized ({tensor.dtype})'
  if tensor.layout != torch.strided:
    return f'sparse ({tensor.layout})'
  if tensor.is_meta:
    return 'meta (without data)'
  if tensor.is_complex():
    return f'complex ({tensor.dtype})'
  is_known = tensor.dtype == torch.bfloat16 or tensor.dtype.itemsize > 1
  plain = (torch.int8, torch.uint8, torch.bool)
  return '' if is_known or tensor.dtype in plain else str(tensor.dtype).removeprefix('torch.')


def _numpy(tensor: Any) -> np.ndarray:
  import torch

  tensor = tensor.resolve_neg()
  if tensor.dtype == torch.bfloat16:
    return tensor.contiguous().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
  return tensor.numpy()
