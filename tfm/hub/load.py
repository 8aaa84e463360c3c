"""A model from a folder: a checkpoint of ours, or one as Hugging Face publishes them."""

from collections.abc import Collection
import dataclasses
from pathlib import Path
import sys
from typing import Any

import jax

from tfm.core import errors
from tfm.hub.consistency import notes
from tfm.hub.files import CONFIG, GENERATION, FolderFiles, fields_of
from tfm.hub.fill import fill
from tfm.hub.loaded import Loaded
from tfm.hub.match import match
from tfm.hub.quantized import dequantized
from tfm.hub.tensors import Tensors, open_tensors
from tfm.hub.vocabulary import find_vocabulary
from tfm.model.serving import serving
from tfm.train import checkpoint
from tfm.zoo.weights import Published, plan, published


def load(
  path: str | Path,
  *,
  dtype: Any | None = None,
  mesh: jax.sharding.Mesh | None = None,
  length: int | None = None,
  ignore: Collection[str] = (),
) -> Loaded:
  """Load a model with its parameters, tokenizer and settings.

  Args:
    path: A published folder, or the workdir of a training run or one checkpoint of it. A published folder has a
      `config.json`, weights (`model.safetensors`, in one file or several, or `pytorch_model.bin` where PyTorch is
      installed) and, if it has a tokenizer, its files. Code in it is never run.
    dtype: The dtype of the parameters. By default as they are stored; weights that are stored as FP8 or MXFP4 are
      dequantized to the dtype that the config names.
    mesh: A mesh of axes data, fsdp and tensor. Every device gets its share of the weights, and no process reads more
      of them than its own, except of quantized ones.
    length: The longest sequence, for models whose positions depend on it (`tfm.model.serving`): Phi-3 for 128k tokens
      has other angles for sequences of up to 4096. By default as long as published.
    ignore: Names of fields of a published `config.json` to leave out, which no family knows. A line on stderr names
      each.

  Returns:
    The model. It generates and chats with the folder's own settings (`tfm.hub.loaded.Loaded`).

  Raises:
    UserError: there is no model; its config asks for what tfm does not compute; its tensors do not fit the config;
      `length` changes nothing.

  Example:
    m = tfm.load('all-MiniLM-L6-v2'); m.apply(input_ids=ids)['last_hidden_state']
  """
  folder = Path(path).expanduser()
  if is_published(folder):
    found = _published(folder, dtype, mesh, ignore)
  elif ignore:
    names = ', '.join(ignore)
    raise errors.UserError(f'{folder}: ignore={names}: there is no config.json. Expected a published folder with it.')
  else:
    *own, folder = checkpoint.load(folder, dtype, mesh)
    found = Loaded(*own)
  found = found._replace(files=FolderFiles.read(folder))
  found.files.json(GENERATION)  # or a damaged file would be found only when text is generated
  return found if length is None else found._replace(spec=serving(found.spec, length))


def describe(path: str | Path, ignore: Collection[str] = ()) -> Loaded:
  """Return what `load` does, without reading the weights: `params` is None.

  Args:
    path: A published folder, or the workdir of a training run or one checkpoint of it.
    ignore: See `load`.

  Raises:
    UserError: see `load`; tensors are not compared with the config.
  """
  folder = Path(path).expanduser()
  if is_published(folder):
    found = as_stored(read_config(folder, ignore), open_tensors(folder))
    return Loaded(found.spec, None, find_vocabulary(folder), files=FolderFiles.read(folder))
  folder = checkpoint.find(folder)
  experiment, vocabulary = checkpoint.about(folder)
  step = int(folder.name) if folder.name.isdigit() else 0
  return Loaded(experiment.model, None, vocabulary, experiment, step, FolderFiles.read(folder))


def is_published(path: str | Path) -> bool:
  """Whether the folder is one as Hugging Face publishes them."""
  return (Path(path).expanduser() / CONFIG).is_file()


def _published(folder: Path, dtype: Any | None, mesh: jax.sharding.Mesh | None, ignore: Collection[str]) -> Loaded:
  values = config_of(folder)
  tensors = dequantized(open_tensors(folder), values, dtype, str(folder / CONFIG))
  found = as_stored(published(values, str(folder / CONFIG), ignore), tensors)
  wanted = match(str(folder), found, tensors)
  tokenizer = find_vocabulary(folder)
  for note in notes(values, found, tokenizer):
    print(f'{folder}: {note}', file=sys.stderr)
  return Loaded(found.spec, fill(found.spec, wanted, tensors, dtype, mesh), tokenizer)


def read_config(folder: str | Path, ignore: Collection[str] = ()) -> Published:
  """Return the model that a folder's `config.json` describes, read without the unknown fields `ignore`.

  Raises:
    UserError: its `model_type`, class or a field is unknown.
  """
  return published(config_of(folder), str(Path(folder).expanduser() / CONFIG), ignore)


def config_of(folder: str | Path) -> dict[str, Any]:
  """Return the fields of a folder's `config.json`.

  Raises:
    UserError: it is missing, or not a JSON object.
  """
  return fields_of(Path(folder).expanduser() / CONFIG)


def as_stored(found: Published, tensors: Tensors) -> Published:
  """Without what its class may have and this checkpoint was written without: a pooler, layers of later tokens."""
  top, spec = found.spec.classifier, found.spec
  learned = top is not None and not top.labels and top.hidden is not None
  if learned and not any('pooler' in name for name in tensors):
    spec = spec.with_heads(classify=None)
  if spec.mtp is not None:
    ahead = [t.name for t in plan(found.family, spec, found.ending) if t.slots[0].path.startswith('mtp/')]
    spec = spec if any(name in tensors for name in ahead) else dataclasses.replace(spec, mtp=None)
  return found._replace(spec=spec)
