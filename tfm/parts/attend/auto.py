"""The kernel that is fastest for what is asked, chosen while the program is traced."""

from collections.abc import Iterator
import contextlib
import contextvars
import dataclasses

import jax

from tfm.parts.attend.base import Attend, Scores
from tfm.parts.attend.blockwise import Blockwise
from tfm.parts.attend.cudnn import Cudnn
from tfm.parts.attend.dense import DenseAttention
from tfm.parts.attend.pallas.flash import Pallas
from tfm.parts.attend.staircase import Staircase
from tfm.parts.tokeninfo import TokenInfo

#: The kernels to try, the fastest first; the last refuses nothing. `splash` has not been timed
#: against `pallas`, which takes all that it does: whoever wants it names it.
CANDIDATES: tuple[Attend, ...] = (Pallas(), Cudnn(), Staircase(), Blockwise(), DenseAttention())


@dataclasses.dataclass(frozen=True)
class Choice:
  """A kernel, for scores of which shape `[B, N, T, S]`, and why each one that stands before it was
  refused.
  """

  kernel: Attend
  shape: tuple[int, int, int, int]
  refused: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Auto(Attend):
  """The first of `CANDIDATES` that neither refuses what is asked nor loses to a simpler one;
  `recorded` tells why.
  """

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    choice = self.choose(jax.default_backend(), q_BTNH, k_BSKH, v_BSKH, q, k, scores)
    if (record := _RECORD.get()) is not None and choice not in record:
      record.append(choice)
    return choice.kernel(q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce)

  def choose(
    self,
    platform: str,
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    q: TokenInfo,
    k: TokenInfo,
    scores: Scores,
  ) -> Choice:
    """The first candidate that does not refuse, and the sentences of those that do."""
    B, T, N, _ = q_BTNH.shape
    S = k_BSKH.shape[1]
    refused: dict[str, str] = {}
    for kernel in CANDIDATES:
      why = kernel.loses(platform, B, N, T, S) or kernel.refuses(
        q_BTNH, k_BSKH, v_BSKH, q, k, scores
      )
      if why is None:
        return Choice(kernel, (B, N, T, S), refused)
      refused[kernel.table().name_of(kernel)] = why
    raise AssertionError('dense refuses nothing')


_RECORD: contextvars.ContextVar[list[Choice] | None] = contextvars.ContextVar(
  'record', default=None
)


@contextlib.contextmanager
def recorded() -> Iterator[list[Choice]]:
  """The choices that `Auto` makes in programs traced within, each once."""
  found: list[Choice] = []
  token = _RECORD.set(found)
  try:
    yield found
  finally:
    _RECORD.reset(token)
