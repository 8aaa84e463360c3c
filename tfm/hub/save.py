"""Save a model as a checkpoint of tfm outside a training run."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from tfm.core import errors
from tfm.core.newfolder import new_folder
from tfm.core.precision import Precision
from tfm.data.tokenizer import Vocabulary
from tfm.hub.files import FolderFiles
from tfm.model.spec import Model
from tfm.parts.stored import Joined, Stored
from tfm.train import checksums
from tfm.train.experiment import Experiment
from tfm.train.saver import no_orbax_warnings, write_about


def save(
  spec: Model,
  params: Any,
  path: str | Path,
  *,
  tokenizer: Vocabulary | None = None,
  files: FolderFiles | None = None,
) -> None:
  """Save a model in a new folder, for `tfm.load`.

  The folder is written completely or not at all.

  Args:
    spec: The architecture.
    params: The parameters.
    path: The new folder.
    tokenizer: The tokenizer, None if the model has none.
    files: The other files of a published folder (`Loaded.files`), kept byte for byte.

  Raises:
    UserError: `path` exists, or the parameters are quantized or prepared for decoding.
  """
  is_stored = lambda leaf: isinstance(leaf, Stored | Joined)
  if any(map(is_stored, jax.tree.leaves(params, is_leaf=is_stored))):
    raise errors.UserError(
      'save: params are quantized or prepared for decoding. '
      'Expected the parameters that they were made from.'
    )
  with new_folder(path) as folder:
    dtypes = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(params)})
    dtype = dtypes[0] if len(dtypes) == 1 else 'float32'
    experiment = Experiment(model=spec, precision=Precision(param=dtype))
    write_about(folder / 'about', experiment, tokenizer, extra_files=files.kept() if files else {})
    with no_orbax_warnings(), ocp.Checkpointer(checksums.StateHandler()) as writer:
      writer.save(folder / 'state', args=checksums.StateSave({'params': params}))
