"""What the kernels are given, apart from them: `jax.experimental.pallas` takes long to import."""

from typing import Any, NamedTuple

import jax

from tfm.parts.attend.pallas.rules import Rules


class Operands(NamedTuple):
  """What the kernels read: heads before tokens, whole tiles of tokens.

  Sites are their leaves in int32, `[B, leaves, T]`, and one more if dropout must know where tokens stood that have been
  moved; `numbers` `[N, floats]` and `whole` `[N, ints]` are what the rules read, `seeds` `[B, N]` what dropout does.
  """

  q_BNTH: jax.Array
  k_BKSH: jax.Array
  v_BKSH: jax.Array
  q_site: jax.Array
  k_site: jax.Array
  numbers: jax.Array
  whole: jax.Array
  seeds: jax.Array


class Plan(NamedTuple):
  """How the kernels go about it: the rules, the tiles' sizes, the dtypes of the sites' leaves, whether interpreted."""

  rules: Rules
  size: int
  width: int
  q_dtypes: tuple[Any, ...]
  k_dtypes: tuple[Any, ...]
  interpret: bool | None
