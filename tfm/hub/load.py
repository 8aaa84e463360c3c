"""A model from a folder: a checkpoint of ours, or one as Hugging Face publishes them."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax

from tfm.core import errors
from tfm.data.tokenizer import Vocabulary
from tfm.hub.experts import unstacked
from tfm.hub.fill import fill
from tfm.hub.match import match
from tfm.hub.processor import ProcessorFiles
from tfm.hub.quantized import dequantized
from tfm.hub.tensors import Tensors, open_tensors
from tfm.hub.tokens import CONFIG, Tokens, read_tokens
from tfm.hub.vocabulary import find_vocabulary
from tfm.model.serving import serving
from tfm.model.spec import Model
from tfm.train import checkpoint
from tfm.train.experiment import Experiment
from tfm.zoo.weights import Published, plan, published


class Loaded(NamedTuple):
  """A model, its parameters and, if it has one, its tokenizer; the experiment and step of one that was trained here.

  `tokens` are the special tokens that a published folder's files name (`tfm.hub.tokens`), for `export_hf` and `save`,
  as are `processor_files`, which configure `processor`.
  """

  spec: Model
  params: Any
  tokenizer: Vocabulary | None
  experiment: Experiment | None = None
  step: int = 0
  tokens: Tokens | None = None
  processor_files: ProcessorFiles | None = None

  @property
  def processor(self) -> Any:
    """The processor of images or audio (`tfm.data.processors`), None if the folder configures none.

    Raises:
      ConfigError: the folder names a class that tfm lacks.
    """
    return None if self.processor_files is None else self.processor_files.processor()


def load(
  path: str | Path, *, dtype: Any | None = None, mesh: jax.sharding.Mesh | None = None, length: int | None = None
) -> Loaded:
  """The model, parameters and tokenizer of a training run's workdir, or of a published folder.

  A published folder has a `config.json`, weights (`model.safetensors`, in one file or several, or `pytorch_model.bin`
  where PyTorch is installed) and, if it has a tokenizer, its files. Nothing of it is run.

  `dtype` is that of the parameters (None: as they are stored; what is stored as FP8 or MXFP4 is dequantized to the
  dtype that the config names). With `mesh`, a mesh of axes data, fsdp, tensor, every device gets its share of
  the weights, and no process reads more of them than its own, but for quantized ones.

  `length` is the longest row that the model is to be told, where its positions depend on that (`tfm.model.serving`):
  Phi-3 for 128k tokens has other angles for rows of up to 4096. None: as long as the published model's.

  Raises: UserError if there is no model, if its config says what no spec of ours does, or if its tensors are others;
  if `length` changes nothing.

  Example:
    m = tfm.load('all-MiniLM-L6-v2'); tfm.apply(m.spec, m.params, input_ids=ids)['last_hidden_state']
  """
  folder = Path(path).expanduser()
  found = _published(folder, dtype, mesh) if is_published(folder) else Loaded(*checkpoint.load(folder, dtype, mesh))
  found = found._replace(tokens=read_tokens(folder) or None, processor_files=ProcessorFiles.read(folder))
  return found if length is None else found._replace(spec=serving(found.spec, length))


def is_published(path: str | Path) -> bool:
  """Whether the folder is one as Hugging Face publishes them."""
  return (Path(path).expanduser() / CONFIG).is_file()


def _published(folder: Path, dtype: Any | None, mesh: jax.sharding.Mesh | None) -> Loaded:
  values = config_of(folder)
  tensors = dequantized(open_tensors(folder), values, dtype, str(folder / CONFIG))
  found = as_stored(published(values, str(folder / CONFIG)), tensors)
  tensors = unstacked(tensors, found)
  wanted = match(str(folder), found, tensors)
  return Loaded(found.spec, fill(found.spec, wanted, tensors, dtype, mesh), find_vocabulary(folder))


def read_config(folder: str | Path) -> Published:
  """What a folder's `config.json` says.

  Raises: UserError for an unknown `model_type`, class or field.
  """
  return published(config_of(folder), str(Path(folder).expanduser() / CONFIG))


def config_of(folder: str | Path) -> dict[str, Any]:
  """The fields of a folder's `config.json`.

  Raises: UserError for a file that holds none.
  """
  path = Path(folder).expanduser() / CONFIG
  try:
    values = json.loads(path.read_text('utf-8'))
    if not isinstance(values, dict):
      raise ValueError('it holds no fields')
  except (OSError, ValueError) as error:
    raise errors.UserError(f'{path}: is not a config: {error}.') from error
  return values


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
