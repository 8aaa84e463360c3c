"""Export a model to a folder that `from_pretrained` of transformers opens."""

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
from tfm.hub.export_metadata import keep_metadata, matching_config, with_dtype, write_files
from tfm.hub.files import CONFIG, FolderFiles, without_ids
from tfm.hub.spec_equivalence import flattened, normalised
from tfm.hub.tensors import INDEX, SAFE
from tfm.model.adapters import merge_adapters
from tfm.model.spec import Model
from tfm.model.transformer import param_shapes
from tfm.version import __version__
from tfm.zoo import rounding, weights
from tfm.zoo.weights import Published, Tensor

#: The default maximum size of a weight file in bytes.
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
  """Write a model to a new folder for Hugging Face transformers.

  The folder holds config, safetensors weights, tokenizer and settings. It is written completely or
  not at all. Parameters keep their dtypes. An adapter is merged into the weights.

  Args:
    spec: The architecture.
    params: The parameters, as `tfm.init` or `tfm.load` returns them.
    path: The new folder.
    tokenizer: The tokenizer. By default the one in `files`.
    files: The other files of the loaded folder (`Loaded.files`). They are written byte for byte,
      except for fields that no longer match the model, its dtype or its tokenizer.
    architecture: The class of transformers, such as 'LlamaForCausalLM'. By default the class in
      `files`, else the first class that can express `spec`.
    shard_bytes: The maximum size of a weight file in bytes.

  Returns:
    The name of the class.

  Raises:
    UserError: No published class can express `spec` (the message names the nearest and the
      differences), the parameters do not match `spec`, or `path` exists.
  """
  check_new(path)
  spec, params = merge_adapters(spec, params)
  files = FolderFiles({}) if files is None else files
  values, model = matching_config(spec, files, architecture) or class_of(spec, architecture)
  leaves = _leaves(spec, params)
  tensor_map = weights.tensor_map(model.family, spec, model.ending)
  by_path = {t.slots[0].path: t for t in reversed(tensor_map)}
  for name, twin in model.family.twins(spec).items():
    if twin in by_path:
      tensor_map.append(dataclasses.replace(by_path[twin], name=name))
  with new_folder(path) as folder:
    before, files = files, write_files(folder, files, tokenizer)
    same_files = files is before
    new_tokenizer = None if same_files and CONFIG in files else tokenizer
    values = values if same_files else without_ids(values)
    values = with_dtype(values, {str(leaf.dtype) for leaf in leaves.values()})
    values |= rounding.write(spec)
    if new_tokenizer is not None or values != files.json(CONFIG):
      values = keep_metadata(values, files.json(CONFIG))
      values |= _tokens(new_tokenizer, values) | {'tfm_version': __version__}
      _write_json(folder / CONFIG, values)
    fixed = model.family.fixed_of(spec, model.ending) | _scales(spec, tensor_map)
    _write_weights(folder, tensor_map, leaves, fixed, shard_bytes)
  return model.architecture


def class_of(spec: Model, architecture: str | None = None) -> tuple[dict[str, Any], Published]:
  """Return the published class that expresses a spec.

  Args:
    spec: The model.
    architecture: The class of transformers. None tries all classes.

  Returns:
    The fields of `config.json`, and the published model that they describe.

  Raises:
    UserError: No class can express `spec`, or `architecture` is unknown.
  """
  classes: dict[str, tuple[str, str]] = {}
  for name, family in weights.TABLE.items():
    classes |= {family.stem + ending: (name, ending) for ending in family.endings}
  if architecture is not None and architecture not in classes:
    raise errors.UserError(f'export: {errors.unknown("architecture", architecture, classes)}')
  target = normalised(spec)
  others: dict[str, Model] = {}
  for cls in classes if architecture is None else [architecture]:
    if (written := _written_config(spec, *classes[cls])) is None:
      continue
    values, model = written
    others[cls] = normalised(model.spec)
    if flattened(others[cls]) == flattened(target):
      return values, model
  differs = {cls: config.diff(other, target) for cls, other in others.items()}
  nearest = min(differs, key=lambda cls: len(differs[cls]), default=None)
  details = ''
  if nearest is not None:
    details = f' The nearest, {nearest}, differs at:\n  ' + '\n  '.join(differs[nearest][:8])
  subject = f'{architecture} cannot' if architecture else 'no published class can'
  raise errors.UserError(
    f'export: {subject} express this model.{details}\n'
    'Expected a model of a published family. A checkpoint of tfm (tfm.hub.save) holds any model.'
  )


def _written_config(spec: Model, name: str, ending: str) -> tuple[dict[str, Any], Published] | None:
  """Return the config of a class for `spec` and its reading, or None if it cannot express it."""
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
  pairs = jax.tree_util.tree_leaves_with_path(param_shapes(spec))
  shapes = {_path(p): x.shape for p, x in pairs}
  leaves = {_path(p): x for p, x in jax.tree_util.tree_leaves_with_path(params)}
  fits = lambda n: n in leaves and leaves[n].shape == shapes.get(n)
  if wrong := sorted(n for n in {*shapes, *leaves} if not fits(n)):
    raise errors.UserError(
      f'export: the parameters do not match the model: {", ".join(wrong[:8])}. Expected parameters '
      'from init(spec, key) or load(path), before prepare.'
    )
  return leaves


def _tokens(tokenizer: Vocabulary | None, values: dict[str, Any]) -> dict[str, int | None]:
  """Return the special token ids of a tokenizer that a config lacks.

  Tokens that the tokenizer lacks are null. Otherwise transformers would use the default ids of the
  family.
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
  parts = [np.asarray(jax.device_get(leaves[s.path][s.index])) for s in tensor.slots]
  # ascontiguousarray would turn scalars into vectors.
  return np.asarray(tensor.rule.join(parts, tensor.slots), order='C')


def _write_weights(
  folder: Path,
  tensor_map: list[Tensor],
  leaves: dict[str, Any],
  fixed: dict[str, np.ndarray],
  max_bytes: int,
) -> None:
  sizes = [int(np.prod(t.shape)) * leaves[t.slots[0].path].dtype.itemsize for t in tensor_map]
  files = list(_files(tensor_map, sizes, max_bytes))
  with Progress('writing weights', sum(sizes)) as bar:
    where: dict[str, str] = {}
    for i, tensors in enumerate(files, 1):
      name = SAFE if len(files) == 1 else f'model-{i:05}-of-{len(files):05}.safetensors'
      arrays = {t.name: _joined(t, leaves) for t in tensors}
      arrays |= fixed if i == len(files) else {}
      safetensors.numpy.save_file(arrays, folder / name, metadata={'format': 'pt'})
      where |= dict.fromkeys(arrays, name)
      bar.advance(sum(a.nbytes for a in arrays.values()))
  if len(files) > 1:
    _write_json(folder / INDEX, {'metadata': {'total_size': sum(sizes)}, 'weight_map': where})


def _files(tensor_map: list[Tensor], sizes: list[int], max_bytes: int) -> Iterator[list[Tensor]]:
  """Yield the tensors of each file, up to `max_bytes` a file."""
  tensors: list[Tensor] = []
  total = 0
  for tensor, size in zip(tensor_map, sizes, strict=True):
    if tensors and total + size > max_bytes:
      yield tensors
      tensors, total = [], 0
    tensors.append(tensor)
    total += size
  yield tensors


def _write_json(path: Path, values: Any) -> None:
  path.write_text(json.dumps(values, indent=2, sort_keys=True) + '\n', 'utf-8')
