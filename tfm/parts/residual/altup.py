"""Alternating updates of several residual streams (AltUp, Gemma 3n)."""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded, trailing
from tfm.core.module import Module
from tfm.parts.act.base import Act
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.context import Ctx, Dims
from tfm.parts.contract import contract
from tfm.parts.dense import Dense, weight
from tfm.parts.norm.base import Norm
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.residual.base import Residual
from tfm.parts.stored import Stored


@dataclasses.dataclass(frozen=True)
class AltUp(Residual):
  """Several residual streams with one computed stream per block (AltUp, arXiv:2301.13310).

  A block predicts all streams x_i by z_i = x_i + sum_j p_ij x_j. It then corrects them to z_i +
  (1 + c_i) (block(z_0) - z_0). p is linear in m(x_0) and c in m(block(z_0)), where m(y) =
  tanh(norm(y) W / D).

  x_0 starts as the embeddings, and the other streams as projections of them. The output of the
  stack is the mean of x_0 and of projections of the others. All projections are scaled to the root
  mean square of x_0.

  With `inputs`, every block adds norm((act(s x_0 Wg) * e) Wp) to the other streams. e is the
  embedding of the token for this layer (`embed=per_layer`). The streams take `streams` - 1
  additional arrays of the size of the residual stream, in training and in decoding. They need no
  cache.

  Note:
    Gemma 3n clips the weights of p and c to +-120 in training.

  Attributes:
    streams: number of streams.
    norm: norm in m, and of the additions of `inputs`.
    act: activation of the gate of `inputs`.
    inputs: width of the per-layer embeddings; 0: none.
  """

  streams: int = 2
  norm: Norm = RMSNorm()
  act: Act = GeluTanh()
  inputs: int = 0

  def check(self) -> Iterator[str]:
    if self.streams < 2:
      yield (
        f'streams={self.streams} is too small for residual=altup. '
        'Expected at least 2, or residual=plain.'
      )
    if self.inputs < 0:
      yield f'inputs={self.inputs} is not a width. Expected at least 1, or 0 for none.'

  def make(self, dims):
    return _AltUp(self, dims)

  @property
  def in_blocks(self):
    return True

  @property
  def layered(self):
    return self.inputs

  def flops(self, d_model, depth):
    U, P = self.streams, self.inputs
    ends = 4 * (U - 1) * d_model * d_model
    streams = 4 * d_model * U + 2 * d_model * U * U + 2 * U * U * (U + 1)
    return ends + depth * (streams + 4 * d_model * P)


class _AltUp(Module):
  """Projections before the first block and after the last."""

  spec: AltUp
  dims: Dims

  @nn.compact
  def __call__(self) -> '_Streams':
    others = range(1, self.spec.streams)
    before = [_Square(self.dims, name=f'in_{i}')() for i in others]
    after = [_Square(self.dims, name=f'out_{i}')() for i in others]
    return _Streams(self.spec, self.dims, before, after)


class _Square(Module):
  dims: Dims

  @nn.compact
  def __call__(self) -> Callable[[jax.Array], jax.Array]:
    D = self.dims.d_model
    init = sharded(self.dims.init.weight('altup', D, D, self.dims), 'DD')
    kernel = weight(self, 'kernel', init, (D, D), self.dims.run.precision.dtype('param'))
    return (
      kernel.contract
      if isinstance(kernel, Stored)
      else lambda x: contract(x, kernel.astype(x.dtype))
    )


@dataclasses.dataclass(frozen=True)
class _Streams:
  spec: AltUp
  dims: Dims
  before: list[Callable[[jax.Array], jax.Array]]
  after_: list[Callable[[jax.Array], jax.Array]]

  def start(self, x_BTD):
    return x_BTD, jnp.stack([_as_large(project(x_BTD), x_BTD) for project in self.before])

  def join(self, residual_layout, x_BTD, carry, branches, norm, ctx):
    mix = _Mix(self.spec, self.dims, name='altup')
    predicted_UBTD = mix.predict(jnp.concatenate([x_BTD[None], carry]))
    y_BTD = residual_layout(predicted_UBTD[0], branches, norm)
    new_UBTD = mix.correct(predicted_UBTD, y_BTD)
    others = new_UBTD[1:] + mix.added(new_UBTD[0], ctx)[None] if self.spec.inputs else new_UBTD[1:]
    return new_UBTD[0], others

  def after(self, x_BTD, carry, layer):
    return x_BTD, carry

  def end(self, x_BTD, carry):
    others = [
      _as_large(project(other), x_BTD) for project, other in zip(self.after_, carry, strict=True)
    ]
    return jnp.mean(jnp.stack([x_BTD, *others]), 0)


class _Mix(nn.Module):
  """Parameters of one block: the weights of p and c, and the gate of `inputs`."""

  spec: AltUp
  dims: Dims

  def setup(self):
    U, D, P, dims = self.spec.streams, self.dims.d_model, self.spec.inputs, self.dims
    self.norm, self.route = self.spec.norm.make(dims), Dense('DU', (D, U), dims)
    self.predictor, self.corrector = Dense('UR', (U, U * U), dims), Dense('UU', (U, U), dims)
    if P:
      self.scale = self.param(
        'scale', sharded(nn.initializers.zeros, 'D'), (D,), dims.run.precision.dtype('param')
      )
      self.input_gate, self.input_project = Dense('DR', (D, P), dims), Dense('RD', (P, D), dims)
      self.input_norm = self.spec.norm.make(dims)

  def predict(self, x_UBTD: jax.Array) -> jax.Array:
    """Return the predicted streams z."""
    U = self.spec.streams
    weight_BTUU = self.predictor(self._mode(x_UBTD[0])).reshape(*x_UBTD.shape[1:3], U, U)
    return x_UBTD + jnp.einsum('btij,jbtd->ibtd', weight_BTUU, x_UBTD)

  def correct(self, predicted_UBTD: jax.Array, y_BTD: jax.Array) -> jax.Array:
    """Return the corrected streams, given z and the output of the block."""
    factor_UBT = jnp.moveaxis(self.corrector(self._mode(y_BTD)) + 1, 2, 0)
    return predicted_UBTD + factor_UBT[..., None] * (y_BTD - predicted_UBTD[0])[None]

  def added(self, x_BTD: jax.Array, ctx: Ctx) -> jax.Array:
    """Return the update of the other streams by the per-layer embeddings."""
    layer = 0 if ctx.layer is None else ctx.layer
    gate_BTR = self.spec.act(self.input_gate(x_BTD * trailing(self.scale.astype(x_BTD.dtype), 3)))
    if self.is_initializing():
      return self.input_norm(self.input_project(gate_BTR))
    assert ctx.layered_BTLR is not None
    e_BTR = jax.lax.dynamic_index_in_dim(ctx.layered_BTLR, layer, 2, keepdims=False)
    return self.input_norm(self.input_project(gate_BTR * e_BTR))

  def _mode(self, x_BTD: jax.Array) -> jax.Array:
    return jnp.tanh(self.route(self.norm(x_BTD) / self.dims.d_model))


def _as_large(y_BTD: jax.Array, x_BTD: jax.Array) -> jax.Array:
  """Return y, scaled to the root mean square of x."""
  mean_square: Any = lambda a: jnp.mean(a * a, -1, keepdims=True)
  scale = jnp.sqrt(mean_square(x_BTD))
  return y_BTD * scale / jnp.sqrt(jnp.maximum(mean_square(y_BTD), 1e-5))
