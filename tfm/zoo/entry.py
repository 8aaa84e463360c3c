"""What the zoo says of a published model."""

import dataclasses

from tfm.model.spec import Model


@dataclasses.dataclass(frozen=True)
class Entry:
  """A published architecture: its spec, the exact number of its parameters, the size its authors
  print, the paper.
  """

  spec: Model
  params: int
  published: str
  paper: str
