"""What the kernels are given, apart from them: `jax.experimental.pallas` takes long to import."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from tfm.parts.attend.pallas.rules import Rules


class Operands(NamedTuple):
  """What the kernels read: heads before tokens, whole tiles of tokens.

  Sites are their leaves in int32, `[B, leaves, T]`, and one more if dropout must know where tokens
  stood that have been moved; `numbers` `[N, floats]` and `whole` `[N, ints]` are what the rules
  read, `seeds` `[B, N]` what dropout does. `tables` `[N, chunks, 128]` are looked up; `asked` `[B,
  N, T, X]` and `told` `[B, 1 or K or N, S, X]` are what terms have of queries and keys, X whole
  chunks of 128."""

  q_BNTH: jax.Array
  k_BKSH: jax.Array
  v_BKSH: jax.Array
  q_info: jax.Array
  k_info: jax.Array
  numbers: jax.Array
  whole: jax.Array
  seeds: jax.Array
  tables: tuple[jax.Array, ...]
  asked: tuple[jax.Array, ...]
  told: tuple[jax.Array, ...]

  def heads(self, told: Sequence[int]) -> int:
    """How many heads of keys have gradients of their own, those of `told` among them."""
    return max([self.k_BKSH.shape[1], *(self.told[i].shape[1] for i in told)])


class Schedule(NamedTuple):
  """How the kernels go about it: the rules, the tiles' sizes, the dtypes of the infos' leaves,
  whether interpreted.

  `constant` says which of what terms have of keys has no gradient.
  """

  rules: Rules
  size: int
  width: int
  q_dtypes: tuple[Any, ...]
  k_dtypes: tuple[Any, ...]
  interpret: bool | None
  constant: frozenset[int] = frozenset()
