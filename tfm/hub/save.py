"""A model as a checkpoint of ours that is not of a run: parameters and vocabulary, nothing to go on with."""

import json
from pathlib import Path
import shutil
import tempfile
from typing import Any

import jax
import orbax.checkpoint as ocp

from tfm.core import errors
from tfm.core.precision import Precision
from tfm.data.tokenizer import Vocabulary
from tfm.hub.processor import ProcessorFiles
from tfm.hub.tokens import KEPT, Tokens
from tfm.model.spec import Model
from tfm.train.experiment import Experiment
from tfm.train.saver import unwarned, write_about


def save(
  spec: Model,
  params: Any,
  path: str | Path,
  *,
  tokenizer: Vocabulary | None = None,
  tokens: Tokens | None = None,
  processor_files: ProcessorFiles | None = None,
) -> None:
  """Writes the new folder `path`, whole or not at all; `load(path)` gives the same back.

  Raises: UserError if `path` is there already.
  """
  folder = check_new(path)
  folder.parent.mkdir(parents=True, exist_ok=True)
  half = Path(tempfile.mkdtemp(prefix=f'.{folder.name}-', dir=folder.parent)).absolute()
  try:
    dtypes = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(params)})
    experiment = Experiment(model=spec, precision=Precision(param=dtypes[0] if len(dtypes) == 1 else 'float32'))
    write_about(half / 'about', experiment, tokenizer)
    if tokens:
      (half / 'about' / KEPT).write_text(json.dumps(tokens, indent=1), 'utf-8')
    if processor_files is not None:
      processor_files.keep(half / 'about')
    with unwarned(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as writer:
      writer.save(half / 'state', args=ocp.args.PyTreeSave({'params': params}))
    half.chmod(0o755)
    half.rename(folder)
  except BaseException:
    shutil.rmtree(half, ignore_errors=True)
    raise


def check_new(path: str | Path) -> Path:
  """The path of a folder that is to be written.

  Raises: UserError if something is there already.
  """
  folder = Path(path).expanduser()
  if folder.exists():
    raise errors.UserError(f'{folder}: is there already. Wanted a new folder.')
  return folder
