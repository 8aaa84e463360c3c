"""A model of ours as a folder that `transformers` opens with plain `from_pretrained`."""

from collections.abc import Iterator
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from tfm.core import config, errors
from tfm.core.newfolder import check_new, new_folder
from tfm.data.progress import Progress
from tfm.data.tokenizer import Vocabulary
from tfm.hub.beside import carried, original_of, with_dtype, write_files
from tfm.hub.files import CONFIG, FolderFiles, without_ids
from tfm.hub.spec_equivalence import computed, layered
from tfm.hub.tensors import INDEX, SAFE
from tfm.model.adapted import merge_adapters
from tfm.model.spec import Model
from tfm.model.transformer import param_shapes
from tfm.version import __version__
from tfm.zoo import rounding, weights
from tfm.zoo.weights import Published, Tensor

#: Bytes of a file of weights, from where on there are several.
SHARD = 5 << 30


def export_hf(
  spec: Model,
  params: Any,
  path: str | Path,
  *,
  tokenizer: Vocabulary | None = None,
  files: FolderFiles | None = None,
  architecture: str | None = None,
  shard_bytes: int = SHARD,
) -> str:
  """Write the new folder `path` for Hugging Face transformers: config, safetensors weights and what
  stands beside them.

  The folder appears whole or not at all. Parameters keep their dtypes; an adapter is merged into
  the weights.

  Args:
    spec: The architecture.
    params: The parameters, as `tfm.init` or `tfm.load` returns them.
    path: The folder.
    tokenizer: The tokenizer. By default that of `files`.
    files: The files beside the weights (`Loaded.files`). They are written byte for byte, except
      where the model, its dtype or its tokenizer is another.
    architecture: The class of transformers, such as 'LlamaForCausalLM'. By default that of `files`,
      else the first that computes what `spec` says.
    shard_bytes: The largest file of weights.

  Returns:
    The name of the class.

  Raises:
    UserError: no published family computes what `spec` says (the message names the nearest, and
      what differs); the parameters do not fit `spec`; `path` is there already.
  """
  check_new(path)
  spec, params = merge_adapters(spec, params)
  files = FolderFiles({}) if files is None else files
  values, found = original_of(spec, files, architecture) or class_of(spec, architecture)
  leaves = _leaves(spec, params)
  tensor_map = weights.tensor_map(found.family, spec, found.ending)
  twins = found.family.twins(spec).items()
  tensor_map += [
    dataclasses.replace(t, name=name)
    for name, path in twins
    for t in tensor_map
    if t.slots[0].path == path
  ]
  with new_folder(path) as half:
    before, files = files, write_files(half, files, tokenizer)
    own = None if files is before and CONFIG in files else tokenizer
    values = values if files is before else without_ids(values)
    values = with_dtype(values, {str(leaf.dtype) for leaf in leaves.values()}) | rounding.write(
      spec
    )
    if own is not None or values != files.json(CONFIG):
      values = carried(values, files.json(CONFIG))
      _write_json(half / CONFIG, values | _tokens(own, values) | {'tfm_version': __version__})
    fixed = found.family.fixed_of(spec, found.ending) | _scales(spec, tensor_map)
    _write_weights(half, tensor_map, leaves, fixed, shard_bytes)
  return found.architecture


def class_of(spec: Model, architecture: str | None = None) -> tuple[dict[str, Any], Published]:
  """The published config that says what `spec` computes, and how it is read back.

  Raises: UserError if there is none.
  """
  classes = {
    f.stem + ending: (name, ending) for name, f in weights.TABLE.items() for ending in f.endings
  }
  if architecture is not None and architecture not in classes:
    raise errors.UserError(f'export: {errors.unknown("architecture", architecture, classes)}')
  ours = computed(spec)
  others: dict[str, Model] = {}
  for cls in classes if architecture is None else [architecture]:
    if (fields := _said(spec, *classes[cls])) is None:
      continue
    values, found = fields
    if layered(others.setdefault(cls, computed(found.spec))) == layered(ours):
      return values, found
  differs = {cls: config.diff(other, ours) for cls, other in others.items()}
  near = min(differs, key=lambda cls: len(differs[cls]), default=None)
  told = (
    ''
    if near is None
    else f' The nearest, {near}, differs at:\n  ' + '\n  '.join(differs[near][:8])
  )
  what = f'{architecture} cannot say' if architecture else 'no published class says'
  raise errors.UserError(
    f'export: {what} what this model computes.{told}\n'
    'Expected a model of a published family; a checkpoint of ours keeps any model.'
  )


def _said(spec: Model, name: str, ending: str) -> tuple[dict[str, Any], Published] | None:
  """(the fields that a class would write for `spec`, how they are read), or None if it has no words
  for it.
  """
  family = weights.TABLE[name]
  try:
    fields = family.write(spec)
    values = {
      'model_type': name,
      'architectures': [family.stem + ending],
      **_top_fields(spec),
      **fields,
    }
    values |= rounding.write(spec)
    return values, weights.published(json.loads(json.dumps(values)))
  except (AttributeError, IndexError, KeyError, StopIteration, TypeError, errors.UserError):
    return None


def _top_fields(spec: Model) -> dict[str, Any]:
  fields: dict[str, Any] = {} if spec.lm is None else {'tie_word_embeddings': spec.lm.tied}
  if spec.classifier is not None and spec.classifier.labels:
    fields['id2label'] = {str(i): f'LABEL_{i}' for i in range(spec.classifier.labels)}
    fields['classifier_dropout'] = spec.classifier.dropout
  return fields


def _scales(spec: Model, tensor_map: list[Tensor]) -> dict[str, np.ndarray]:
  """Return a scale of 1 for each weight that is stored rounded, which transformers multiplies it
  by.
  """
  if not rounding.is_stored(spec):
    return {}
  layers = [
    t.name for t in tensor_map if t.slots[0].path.startswith('segment_') and t.slots[0].n_in
  ]
  return {f'{name}_scale': np.ones(1, np.float32) for name in layers}


def _leaves(spec: Model, params: Any) -> dict[str, Any]:
  wanted = {_path(p): x.shape for p, x in jax.tree_util.tree_leaves_with_path(param_shapes(spec))}
  leaves = {_path(p): x for p, x in jax.tree_util.tree_leaves_with_path(params)}
  if wrong := sorted(
    n for n in {*wanted, *leaves} if n not in leaves or leaves[n].shape != wanted.get(n)
  ):
    raise errors.UserError(
      f'export: the parameters are not those of the model: {", ".join(wrong[:8])}. Expected what '
      f'init(spec, key) or '
      'load(path) gives, not what prepare makes.'
    )
  return leaves


def _tokens(tokenizer: Vocabulary | None, values: dict[str, Any]) -> dict[str, int | None]:
  """Return the special tokens of a tokenizer for a config that names none: null for those that it
  lacks.

  Without null, transformers takes the ids of the family's first published tokenizer.
  """
  if tokenizer is None:
    return {}
  named = {
    'bos_token_id': tokenizer.bos,
    'eos_token_id': tokenizer.eos,
    'pad_token_id': tokenizer.pad,
  }
  return {name: number for name, number in named.items() if name not in values}


def _path(path: Any) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')


def _joined(tensor: Tensor, leaves: dict[str, Any]) -> np.ndarray:
  ours = [np.asarray(jax.device_get(leaves[s.path][s.index])) for s in tensor.slots]
  return np.asarray(
    tensor.rule.join(ours, tensor.slots), order='C'
  )  # ascontiguousarray makes scalars vectors


def _write_weights(
  folder: Path,
  tensor_map: list[Tensor],
  leaves: dict[str, Any],
  fixed: dict[str, np.ndarray],
  most: int,
) -> None:
  sizes = [int(np.prod(t.shape)) * leaves[t.slots[0].path].dtype.itemsize for t in tensor_map]
  files = list(_files(tensor_map, sizes, most))
  with Progress('writing weights', sum(sizes)) as bar:
    where: dict[str, str] = {}
    for i, tensors in enumerate(files, 1):
      name = SAFE if len(files) == 1 else f'model-{i:05}-of-{len(files):05}.safetensors'
      arrays = {t.name: _joined(t, leaves) for t in tensors} | (fixed if i == len(files) else {})
      safetensors.numpy.save_file(arrays, folder / name, metadata={'format': 'pt'})
      where |= dict.fromkeys(arrays, name)
      bar.advance(sum(a.nbytes for a in arrays.values()))
  if len(files) > 1:
    _write_json(folder / INDEX, {'metadata': {'total_size': sum(sizes)}, 'weight_map': where})


def _files(tensor_map: list[Tensor], sizes: list[int], most: int) -> Iterator[list[Tensor]]:
  """The tensors of each file, as many as fit into `most` bytes."""
  held: list[Tensor] = []
  total = 0
  for tensor, size in zip(tensor_map, sizes, strict=True):
    if held and total + size > most:
      yield held
      held, total = [], 0
    held.append(tensor)
    total += size
  yield held


def _write_json(path: Path, values: Any) -> None:
  path.write_text(json.dumps(values, indent=2, sort_keys=True) + '\n', 'utf-8')
