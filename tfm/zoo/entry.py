"""One published model of the zoo."""

import dataclasses

from tfm.model.spec import Model


@dataclasses.dataclass(frozen=True)
class Entry:
  """A published model.

  Attributes:
    spec: the architecture.
    params: exact number of parameters.
    published: size as the authors state it, such as '7B'.
    paper: title of the paper or model card, with its arXiv number if it has one.
  """

  spec: Model
  params: int
  published: str
  paper: str
