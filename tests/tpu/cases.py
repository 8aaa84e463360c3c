"""Attention programs that are compiled for TPUs ahead of time."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tests.parts.attending import t5
from tfm.parts.attend.base import Scores
from tfm.parts.attend.dropout import Dropout
from tfm.parts.attend.pallas.flash import Pallas
from tfm.parts.mask import Causal, Mask, Segments
from tfm.parts.relative import ALiBi
from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class Case:
  """Shapes and options of one attention call."""

  mask: Mask = Causal()
  biases: str = ''
  cap: float | None = None
  sink: bool = False
  drop: float = 0.0
  B: int = 2
  T: int = 2048
  N: int = 8
  K: int = 2
  H: int = 128
  Hv: int = 128
  S: int | None = None
  dtype: str = 'bfloat16'


def lowered(case, chips, mesh=None, rules=(), kernel=Pallas()):
  """Return the lowered value and gradients of attention, for one chip or a mesh."""
  mesh = mesh or jax.sharding.Mesh(np.array(chips[:1]).reshape(1, 1), ('data', 'tensor'))
  names = dict(rules)

  def like(letters, *shape, dtype=case.dtype):
    where = jax.NamedSharding(mesh, jax.P(*(names.get(letter) for letter in letters)))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

  def info(n):
    ints = like('BT', case.B, n, dtype='int32')
    return TokenInfo(
      ints,
      ints,
      {'prefix': like('BT', case.B, n, dtype=bool)} if 'prefix' in case.mask.reads else {},
    )

  def loss(q, k, v, table, sink, q_info, k_info, key):
    biases = [t5(table)] if 't5' in case.biases else []
    biases += [lambda a, b: ALiBi().bias(case.N, a, b)] if 'alibi' in case.biases else []
    drop = Dropout.of(key, case.B, case.N, case.drop) if case.drop else None
    scores = Scores(
      case.H**-0.5,
      case.mask & Segments(),
      tuple(biases),
      cap=case.cap,
      sink_N=sink if case.sink else None,
      drop=drop,
      ordered=case.mask.causal and case.S is None,
    )
    y = kernel(q, k, v, q_info, k_info, scores, 'float32').astype(jnp.float32)
    return jnp.sum(y * y)

  def program(*args):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(rules):
      return jax.value_and_grad(loss, range(5))(*args)

  S = case.S or case.T
  return jax.jit(program).lower(
    like('BTNH', case.B, case.T, case.N, case.H),
    like('BSKH', case.B, S, case.K, case.H),
    like('BSKH', case.B, S, case.K, case.Hv),
    like('UN', 32, case.N, dtype='float32'),
    like('N', case.N, dtype='float32'),
    info(case.T),
    info(S),
    like('', dtype=jax.eval_shape(lambda: jax.random.key(0)).dtype),
  )
