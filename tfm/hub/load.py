"""Load a model from a published folder, a GGUF file or a checkpoint of tfm."""

from collections.abc import Collection
import dataclasses
import json
from pathlib import Path
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

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
from tfm.zoo.weights.identify import explained


class _Source(NamedTuple):
  """A published model before its weights are read.

  Attributes:
    where: The path, for errors.
    values: The fields of `config.json`.
    tensors: The stored tensors.
    tokenizer: The tokenizer, None if there is none.
    files: The other files of the folder.
  """

  where: str
  values: dict[str, Any]
  tensors: Tensors
  tokenizer: Vocabulary | None
  files: FolderFiles


def load(
  path: str | Path,
  *,
  dtype: DTypeLike | None = None,
  mesh: jax.sharding.Mesh | None = None,
  length: int | None = None,
  adapter: str | Path | None = None,
  ignore: Collection[str] = (),
) -> Loaded:
  """Load a model with its parameters, tokenizer and settings.

  Args:
    path: A published folder, a GGUF file, or the workdir or a checkpoint of a training run. A
      published folder holds `config.json`, weights and optional tokenizer files. The weights are
      `model.safetensors` (one file or several) or, with PyTorch installed, `pytorch_model.bin`.
      Code in the folder is never run.
    dtype: The dtype of the parameters. By default the stored dtype. Quantized weights are
      dequantized to this dtype, by default to the one in the config.
    mesh: A mesh with axes data, fsdp and tensor, over which the parameters are sharded. Each
      process reads only its own shards of unquantized weights. By default one device.
    length: The maximum sequence length in tokens, for models with length-dependent position
      encodings (see `tfm.model.serving`). Phi-3 128k, for example, uses different rotary
      frequencies up to 4096 tokens. By default the published length.
    adapter: The folder of a PEFT LoRA adapter of this published model. It becomes `spec.adapter`:
      train it further, or merge it with `tfm.model.adapters.merge_adapters`.
    ignore: Names of unknown `config.json` fields to ignore. Each is reported on stderr.

  Weights with NaN or infinite numbers are reported on stderr.

  Returns:
    The model, which generates and chats with the settings of its folder.

  Raises:
    UserError: `path` holds no model, the config has an unsupported option, the tensors do not match
      the config, `length` has no effect, or `adapter` or `ignore` is given for a checkpoint of tfm.

  Example:
    m = tfm.load('all-MiniLM-L6-v2'); m.apply(input_ids=ids)['last_hidden_state']
  """
  folder = resolve_path(path)
  dtype = None if dtype is None else _float(dtype)
  if (file := find_file(folder)) is not None:
    loaded = _filled(_gguf(file, dtype), dtype, mesh, adapter, ignore)
  elif is_published(folder):
    with explained(str(folder / CONFIG)):
      loaded = _filled(_published(folder, dtype), dtype, mesh, adapter, ignore)
  else:
    loaded = _checkpoint(folder, dtype, mesh, adapter, ignore)
  loaded.files.json(GENERATION)  # Raise for a damaged file now, not at the first call of generate.
  return loaded if length is None else loaded._replace(spec=serving(loaded.spec, length))


def _float(dtype: DTypeLike) -> Any:
  """Return a floating-point dtype of at least 16 bits.

  Raises:
    UserError: `dtype` is none.
  """
  try:
    found = jnp.dtype(dtype)
  except TypeError:
    found = None
  if found is not None and jnp.issubdtype(found, jnp.floating) and found.itemsize >= 2:
    return found
  hint = ''
  if str(dtype) in ('int8', 'uint8'):
    hint = ' For 8-bit weights use m.prepared(int8=True).'
  raise errors.UserError(
    f'load: dtype is {str(dtype)!r}. Expected float32, bfloat16, float16 or float64.{hint}'
  )


def _published(folder: Path, dtype: DTypeLike | None) -> _Source:
  check_published(folder)
  values = config_fields(folder)
  tensors = dequantized(open_tensors(folder), values, dtype, str(folder / CONFIG))
  values.pop('quantization', None)  # MLX's name of quantization_config.
  values, tensors = language_model(values, tensors, str(folder / CONFIG))
  return _Source(str(folder), values, tensors, find_vocabulary(folder), FolderFiles.read(folder))


def _gguf(path: Path, dtype: DTypeLike | None) -> _Source:
  file = Gguf(path)
  return _Source(
    str(path), file.config, file.tensors(dtype), file.vocabulary, FolderFiles(file.files, path)
  )


def _checkpoint(
  folder: Path,
  dtype: DTypeLike | None,
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
  """Return the files in a checkpoint of tfm, with its class names in `config.json`."""
  files, names = FolderFiles.read(folder), checkpoint.class_names(folder)
  if not names:
    return files
  id2label = {str(i): name for i, name in enumerate(names)}
  labels = {'id2label': id2label, 'label2id': {name: i for i, name in enumerate(names)}}
  return files.with_files({CONFIG: json.dumps({**files.json(CONFIG), **labels}, indent=2).encode()})


def _filled(
  source: _Source,
  dtype: DTypeLike | None,
  mesh: jax.sharding.Mesh | None,
  adapter: str | Path | None,
  ignore: Collection[str],
) -> Loaded:
  """Return the model of a source, with its parameters and an optional PEFT adapter."""
  folder = Path(source.where)
  where = str(folder / CONFIG if folder.is_dir() else folder)
  values, tensors, peft = source.values, source.tensors, None
  if adapter is not None:
    peft = Peft(adapter)
    values = peft.config_for(values)
  model = published(values, where, ignore)
  if peft is not None:
    tensors = peft.overlay(model, tensors)
  model = without_absent_parts(model, tensors)
  tensors = unstack_experts(tensors, model)
  entries = check_tensors(source.where, model, tensors)
  for note in inconsistencies(source.values, model, source.tokenizer):
    print(f'{source.where}: {note}', file=sys.stderr)
  spec, params = model.spec, fill_params(model.spec, entries, tensors, dtype, mesh, source.where)
  if peft is not None:
    spec, params = peft.add(model, params, dtype, mesh)
  return Loaded(spec, params, source.tokenizer, files=source.files)


def describe(path: str | Path, ignore: Collection[str] = ()) -> Loaded:
  """Return a model as `load` does, but without weights: `params` is None.

  Args:
    path: A published folder, a GGUF file, or the workdir or a checkpoint of a training run.
    ignore: See `load`.

  Returns:
    The model without parameters. Its tensors are not compared with the config.

  Raises:
    UserError: See `load`.
  """
  folder = resolve_path(path)
  if (file := find_file(folder)) is not None or is_published(folder):
    with explained(str(folder / CONFIG if file is None else file)):
      source = _published(folder, None) if file is None else _gguf(file, None)
      model = published(source.values, source.where, ignore)
      spec = without_absent_parts(model, source.tensors).spec
    return Loaded(spec, None, source.tokenizer, files=source.files)
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
  """Return the model that a folder's `config.json` describes.

  Args:
    folder: A published folder.
    ignore: Names of unknown fields to ignore.

  Raises:
    UserError: The folder is missing or not published, or the `model_type`, class or a field is
      unknown.
  """
  place = resolve_path(folder)
  if not (place / CONFIG).is_file():
    raise_unloadable(place)
    raise errors.UserError(f'{place}: has no {CONFIG}. Expected a published folder.')
  where = str(place / CONFIG)
  return published(text_config(config_fields(place), where), where, ignore)


def config_fields(folder: str | Path) -> dict[str, Any]:
  """Return the fields of a folder's `config.json`.

  Raises:
    UserError: The file is missing, or is not a JSON object.
  """
  return fields_of(Path(folder).expanduser() / CONFIG)


def without_absent_parts(model: Published, tensors: Tensors) -> Published:
  """Return a published model without optional parts that its checkpoint lacks.

  These are a pooler and multi-token prediction layers.

  Args:
    model: The model that `config.json` describes.
    tensors: The tensors of the checkpoint.
  """
  top, spec = model.spec.classifier, model.spec
  has_pooler = top is not None and not top.labels and top.hidden is not None
  if has_pooler and not any('pooler' in name for name in tensors):
    spec = spec.with_heads(classify=None)
  if spec.mtp is not None:
    expected = tensor_map(model.family, spec, model.ending)
    mtp = [t.name for t in expected if t.slots[0].path.startswith('mtp/')]
    if not any(name in tensors for name in mtp):
      spec = dataclasses.replace(spec, mtp=None)
  return model._replace(spec=spec)
