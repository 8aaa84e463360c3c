"""What a model says of a row or of a token: labels, or the vector they are read from."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.model.embedding import drop
from tfm.model.spec import Classifier
from tfm.parts.context import Dims
from tfm.parts.dense import Dense


class Classify(nn.Module):
  """`(x_BTD, segment_BT, train) -> (pooled, labels)`, each `[B, ...]` or, of each token, `[B, T, ...]`, or None."""

  spec: Classifier
  dims: Dims

  @nn.compact
  def __call__(
    self, x_BTD: jax.Array, segment_BT: jax.Array, train: bool = False
  ) -> tuple[jax.Array | None, jax.Array | None]:
    s, D = self.spec, self.dims.d_model
    h, pooled, labels = picked(x_BTD, segment_BT, s.pick), None, None
    if s.hidden is not None:
      h = s.hidden(Dense('DD', (D, D), self.dims, bias=s.hidden_bias, name='hidden')(h))
      h = pooled = h if s.norm is None else s.norm.make(self.dims).copy(name='norm')(h)
    if s.labels:
      h = drop(h, s.dropout, train, self)
      labels = Dense('DV', (D, s.labels), self.dims, bias=s.bias, name='out')(h)
    return pooled, labels


def picked(x_BTD: jax.Array, segment_BT: jax.Array, pick: str) -> jax.Array:
  """The vector of each row that `pick` names, or all of them for 'each'. Padding (segment 0) is never picked."""
  if pick == 'each':
    return x_BTD
  real_BT = segment_BT > 0
  if pick == 'mean':
    share_BT = real_BT / jnp.maximum(jnp.sum(real_BT, 1, keepdims=True), 1)
    return jnp.einsum('BT,BTD->BD', share_BT.astype(x_BTD.dtype), x_BTD)
  T = real_BT.shape[1]
  place_B = jnp.argmax(real_BT, 1) if pick == 'first' else T - 1 - jnp.argmax(real_BT[:, ::-1], 1)
  return jnp.take_along_axis(x_BTD, place_B[:, None, None], 1)[:, 0]


def named(found: tuple[Any, Any], alone: bool) -> dict[str, jax.Array]:
  """The outputs by their names; `alone` says that no head speaks of tokens."""
  names = ('pooler_output', 'logits' if alone else 'class_logits')
  return {name: value for name, value in zip(names, found, strict=True) if value is not None}
