"""A model as a checkpoint of tfm that belongs to no run: parameters, tokenizer, and the files of
its folder.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from tfm.core.newfolder import new_folder
from tfm.core.precision import Precision
from tfm.data.tokenizer import Vocabulary
from tfm.hub.files import FolderFiles
from tfm.model.spec import Model
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
  """Write the new folder `path`, whole or not at all; `tfm.load(path)` returns the same model.

  Args:
    spec: The architecture.
    params: The parameters.
    path: The folder.
    tokenizer: The tokenizer.
    files: The files beside the weights of a published folder (`Loaded.files`). They are kept byte
    for byte.

  Raises:
    UserError: `path` is there already.
  """
  with new_folder(path) as half:
    dtypes = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(params)})
    experiment = Experiment(
      model=spec, precision=Precision(param=dtypes[0] if len(dtypes) == 1 else 'float32')
    )
    write_about(half / 'about', experiment, tokenizer, extra_files=files.kept() if files else {})
    with no_orbax_warnings(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as writer:
      writer.save(half / 'state', args=ocp.args.PyTreeSave({'params': params}))
