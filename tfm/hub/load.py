"""Load a model from a published folder, a GGUF file or a checkpoint of tfm."""

from collections.abc import Collection
import dataclasses
import json
from pathlib import Path
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.data.tokenizer import Vocabulary
from tfm.hub.check_tensors import check_tensors
from tfm.hub.files import CONFIG, GENERATION, FolderFiles, fields_of
from tfm.hub.fill_params import fill_params
from tfm.hub.folder_consistency import inconsistencies
from tfm.hub.gguf import Gguf, find_file
from tfm.hub.loaded import Loaded
from tfm.hub.multimodal import language_model, text_config
from tfm.hub.path_errors import check_published, is_checkpoint, raise_unloadable, resolve_path
from tfm.hub.peft import Peft
from tfm.hub.quantized import dequantized
from tfm.hub.stacked_experts import unstack_experts
from tfm.hub.tensors import Tensors, open_tensors
from tfm.hub.vocabulary import find_vocabulary
from tfm.model.serving import serving
from tfm.train import checkpoint
from tfm.zoo.weights import Published, published, tensor_map


class _Source(NamedTuple):
  """A published model before its weights are read."""

  where: str
  values: dict[str, Any]
  tensors: Tensors
  tokenizer: Vocabulary | None
  files: FolderFiles


def load(
  path: str | Path,
  *,
  dtype: Any | None = None,
  mesh: jax.sharding.Mesh | None = None,
  length: int | None = None,
  adapter: str | Path | None = None,
  ignore: Collection[str] = (),
) -> Loaded:
  """Load a model with its parameters, tokenizer and settings.

  Args:
    path: A published folder, a GGUF file, or the workdir of a training run or one checkpoint of it.
      A published folder has a `config.json`, weights (`model.safetensors`, in one file or several,
      or `pytorch_model.bin` where PyTorch is installed) and, if it has a tokenizer, its files. Code
      in it is never run.
    dtype: The dtype of the parameters. By default as they are stored; quantized weights are
      dequantized to the dtype that the config names.
    mesh: A mesh of axes data, fsdp and tensor. Every device gets its share of the weights, and no
      process reads more of them than its own, except of quantized ones.
    length: The longest sequence, for models whose positions depend on it (`tfm.model.serving`):
      Phi-3 for 128k tokens has other angles for sequences of up to 4096. By default as long as
      published.
    adapter: The folder of a PEFT LoRA adapter that was trained on this published model. It becomes
      the adapter of the spec, to be trained on or merged (`tfm.model.adapted.merge_adapters`).
    ignore: Names of fields of a published `config.json` to leave out, which no family knows. A line
      on stderr names each.

  Returns:
    The model. It generates and chats with the folder's own settings (`tfm.hub.loaded.Loaded`).

  Raises:
    UserError: there is no model; its config asks for what tfm does not compute; its tensors do not
      fit the config; `length` changes nothing; `adapter` or `ignore` is given for a checkpoint of
      tfm.

  Example:
    m = tfm.load('all-MiniLM-L6-v2'); m.apply(input_ids=ids)['last_hidden_state']
  """
  folder, dtype = resolve_path(path), None if dtype is None else _float(dtype)
  if (file := find_file(folder)) is not None:
    found = _filled(_gguf(file, dtype), dtype, mesh, adapter, ignore)
  elif is_published(folder):
    found = _filled(_published(folder, dtype), dtype, mesh, adapter, ignore)
  else:
    found = _checkpoint(folder, dtype, mesh, adapter, ignore)
  found.files.json(GENERATION)  # or a damaged file would be found only when text is generated
  return found if length is None else found._replace(spec=serving(found.spec, length))


def _float(dtype: Any) -> Any:
  """Return the dtype of parameters.

  Raises:
    UserError: it holds no floating-point numbers.
  """
  try:
    found = jnp.dtype(dtype)
  except TypeError:
    found = None
  if found is None or not jnp.issubdtype(found, jnp.floating) or found.itemsize < 2:
    hint = (
      ' For weights of one byte use m.prepared(int8=True).'
      if str(dtype) in ('int8', 'uint8')
      else ''
    )
    raise errors.UserError(
      f'load: dtype is {str(dtype)!r}. Expected float32, bfloat16, float16 or float64.{hint}'
    )
  return found


def _published(folder: Path, dtype: Any | None) -> _Source:
  check_published(folder)
  values = config_fields(folder)
  tensors = dequantized(open_tensors(folder), values, dtype, str(folder / CONFIG))
  values = {
    name: value for name, value in values.items() if name != 'quantization'
  }  # MLX's quantization_config
  values, tensors = language_model(values, tensors, str(folder / CONFIG))
  return _Source(str(folder), values, tensors, find_vocabulary(folder), FolderFiles.read(folder))


def _gguf(path: Path, dtype: Any | None) -> _Source:
  file = Gguf(path)
  return _Source(
    str(path), file.config, file.tensors(dtype), file.vocabulary, FolderFiles(file.files, path)
  )


def _checkpoint(
  folder: Path,
  dtype: Any | None,
  mesh: jax.sharding.Mesh | None,
  adapter: Any,
  ignore: Collection[str],
) -> Loaded:
  if not is_checkpoint(folder):
    raise_unloadable(folder)
  for name, value in (('adapter', adapter), ('ignore', ignore)):
    if value:
      raise errors.UserError(
        f'{folder}: {name}={value!r}: this is a checkpoint of tfm. Expected a published folder.'
      )
  m = checkpoint.load(folder, dtype, mesh)
  return Loaded(m.spec, m.params, m.tokenizer, m.experiment, m.step, _files_of(m.folder))


def _files_of(folder: Path) -> FolderFiles:
  """Return the files that a checkpoint of tfm keeps, with the names of its classes as config.json
  has them.
  """
  files, names = FolderFiles.read(folder), checkpoint.class_names(folder)
  if not names:
    return files
  labels = {
    'id2label': {str(i): name for i, name in enumerate(names)},
    'label2id': {n: i for i, n in enumerate(names)},
  }
  return files.with_files({CONFIG: json.dumps({**files.json(CONFIG), **labels}, indent=2).encode()})


def _filled(
  source: _Source,
  dtype: Any | None,
  mesh: jax.sharding.Mesh | None,
  adapter: str | Path | None,
  ignore: Collection[str],
) -> Loaded:
  """Return the model of a source, with a PEFT adapter if there is one."""
  folder = Path(source.where)
  where = str(folder / CONFIG if folder.is_dir() else folder)
  peft = None if adapter is None else Peft(adapter)
  found = published(
    source.values if peft is None else peft.config_for(source.values), where, ignore
  )
  tensors = source.tensors if peft is None else peft.overlay(found, source.tensors)
  found = without_absent_parts(found, tensors)
  tensors = unstack_experts(tensors, found)
  wanted = check_tensors(source.where, found, tensors)
  for note in inconsistencies(source.values, found, source.tokenizer):
    print(f'{source.where}: {note}', file=sys.stderr)
  params = fill_params(found.spec, wanted, tensors, dtype, mesh)
  spec, params = (found.spec, params) if peft is None else peft.add(found, params, dtype, mesh)
  return Loaded(spec, params, source.tokenizer, files=source.files)


def describe(path: str | Path, ignore: Collection[str] = ()) -> Loaded:
  """Return what `load` does, without reading the weights: `params` is None.

  Args:
    path: A published folder, or the workdir of a training run or one checkpoint of it.
    ignore: See `load`.

  Raises:
    UserError: see `load`; tensors are not compared with the config.
  """
  folder = resolve_path(path)
  if (file := find_file(folder)) is not None or is_published(folder):
    source = _published(folder, None) if file is None else _gguf(file, None)
    found = without_absent_parts(published(source.values, source.where, ignore), source.tensors)
    return Loaded(found.spec, None, source.tokenizer, files=source.files)
  if not is_checkpoint(folder):
    raise_unloadable(folder)
  folder = checkpoint.find(folder)
  experiment, vocabulary = checkpoint.about(folder)
  step = int(folder.name) if folder.name.isdigit() else 0
  return Loaded(experiment.model, None, vocabulary, experiment, step, _files_of(folder))


def is_published(path: str | Path) -> bool:
  """Return whether a path is a published folder or a GGUF file, and not a checkpoint of tfm."""
  folder = resolve_path(path)
  return (folder / CONFIG).is_file() or find_file(folder) is not None


def read_config(folder: str | Path, ignore: Collection[str] = ()) -> Published:
  """Return the model that a folder's `config.json` describes, read without the unknown fields
  `ignore`.

  Raises:
    UserError: its `model_type`, class or a field is unknown.
  """
  where = str(Path(folder).expanduser() / CONFIG)
  return published(text_config(config_fields(folder), where), where, ignore)


def config_fields(folder: str | Path) -> dict[str, Any]:
  """Return the fields of a folder's `config.json`.

  Raises:
    UserError: it is missing, or not a JSON object.
  """
  return fields_of(Path(folder).expanduser() / CONFIG)


def without_absent_parts(found: Published, tensors: Tensors) -> Published:
  """Without what its class may have and this checkpoint was written without: a pooler, layers of
  later tokens.
  """
  top, spec = found.spec.classifier, found.spec
  learned = top is not None and not top.labels and top.hidden is not None
  if learned and not any('pooler' in name for name in tensors):
    spec = spec.with_heads(classify=None)
  if spec.mtp is not None:
    ahead = [
      t.name
      for t in tensor_map(found.family, spec, found.ending)
      if t.slots[0].path.startswith('mtp/')
    ]
    spec = spec if any(name in tensors for name in ahead) else dataclasses.replace(spec, mtp=None)
  return found._replace(spec=spec)
