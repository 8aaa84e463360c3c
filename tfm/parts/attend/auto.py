"""Automatic choice of the attention kernel, at trace time."""

from collections.abc import Iterator
import contextlib
import contextvars
import dataclasses

import jax

from tfm.core.platform import target
from tfm.parts.attend.base import Attend, Scores
from tfm.parts.attend.blockwise import Blockwise
from tfm.parts.attend.cudnn import Cudnn
from tfm.parts.attend.dense import DenseAttention
from tfm.parts.attend.pallas.flash import Pallas
from tfm.parts.attend.ring import Ring
from tfm.parts.attend.split import sequence_axes
from tfm.parts.attend.staircase import Staircase
from tfm.parts.attend.ulysses import Ulysses
from tfm.parts.tokeninfo import TokenInfo

#: The kernels to try, fastest first. The last supports every call. `splash` is not among them: it
#: has not been timed against `pallas`, which supports everything that it does.
CANDIDATES: tuple[Attend, ...] = (Pallas(), Cudnn(), Staircase(), Blockwise(), DenseAttention())


@dataclasses.dataclass(frozen=True)
class Choice:
  """The kernel that `Auto` chose for one attention call.

  Attributes:
    kernel: the kernel.
    shape: the shape of the scores, (B, N, T, S).
    refused: a sentence why each earlier candidate was not chosen, by its name.
  """

  kernel: Attend
  shape: tuple[int, int, int, int]
  refused: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Auto(Attend):
  """The first kernel of `CANDIDATES` that supports the call and is not slower than a later one.

  If the mesh splits the sequence, it is `Ulysses` with that kernel if the devices divide the heads,
  else `Ring`.

  `recorded` records the choices and their reasons.
  """

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    call = q_BTNH, k_BSKH, v_BSKH, q, k, scores
    choice = self.choose(target(), *call)
    if sequence_axes(q_BTNH.shape[1]):
      choice = self._over_sequence(choice, *call)
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
    """Return the kernel for a call on a platform, and why each earlier candidate was rejected.

    Args:
      platform: 'cpu', 'gpu' or 'tpu'.
      q_BTNH: queries.
      k_BSKH: keys.
      v_BSKH: values.
      q: token info of the queries.
      k: token info of the keys.
      scores: how scores are formed.

    Returns:
      The choice.
    """
    B, T, N, _ = q_BTNH.shape
    S = k_BSKH.shape[1]
    refused: dict[str, str] = {}
    for kernel in CANDIDATES:
      slower = kernel.loses(platform, B, N, T, S)
      why = slower or kernel.refuses(q_BTNH, k_BSKH, v_BSKH, q, k, scores)
      if why is None:
        return Choice(kernel, (B, N, T, S), refused)
      refused[kernel.table().name_of(kernel)] = f'{why}.'
    raise AssertionError('dense supports every call')

  def _over_sequence(
    self,
    local: Choice,
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    q: TokenInfo,
    k: TokenInfo,
    scores: Scores,
  ) -> Choice:
    """Return the choice for sequences that are split over devices.

    Args:
      local: the choice for whole sequences.
      q_BTNH: queries.
      k_BSKH: keys.
      v_BSKH: values.
      q: token info of the queries.
      k: token info of the keys.
      scores: how scores are formed.

    Returns:
      The choice.
    """
    ulysses = Ulysses(local.kernel)
    why = ulysses.refuses(q_BTNH, k_BSKH, v_BSKH, q, k, scores)
    if why is None:
      return Choice(ulysses, local.shape, local.refused)
    return Choice(Ring(), local.shape, local.refused | {'ulysses': f'{why}.'})


_RECORD: contextvars.ContextVar[list[Choice] | None] = contextvars.ContextVar(
  'record', default=None
)


@contextlib.contextmanager
def recorded() -> Iterator[list[Choice]]:
  """Record the choices of `Auto` in programs traced in this context, without repeats."""
  choices: list[Choice] = []
  token = _RECORD.set(choices)
  try:
    yield choices
  finally:
    _RECORD.reset(token)
