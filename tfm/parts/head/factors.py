"""The factors of the logits of a language-model head."""

from flax import struct
import jax
import jax.numpy as jnp

from tfm.core.axes import trailing
from tfm.parts.contract import contract, contract_table


@struct.dataclass
class LogitFactors:
  """Logits cap(x W + b) that are not multiplied out.

  A loss over a large vocabulary computes them in chunks of the vocabulary, and never stores all.

  Attributes:
    x_BTD: the input of the projection.
    weight: W in the dtype of `x_BTD`, with the axes `letters`.
    bias_V: b in the dtype of `x_BTD`, or None.
    letters: 'DV' (a separate weight) or 'VD' (a token table), with 'R' for an axis of another
      width than the model.
    cap: bound c of the logits, c tanh(logits / c); None: no bound.
  """

  x_BTD: jax.Array
  weight: jax.Array
  bias_V: jax.Array | None = None
  letters: str = struct.field(pytree_node=False, default='DV')
  cap: float | None = struct.field(pytree_node=False, default=None)

  @property
  def vocab(self) -> int:
    """The size of the vocabulary."""
    return self.weight.shape[self.letters.index('V')]

  def logits(self) -> jax.Array:
    """Return the logits `[B, T, V]`."""
    product = contract_table if self.letters[0] == 'V' else contract
    logits_BTV = product(self.x_BTD, self.weight)
    if self.bias_V is not None:
      logits_BTV = logits_BTV + trailing(self.bias_V, 3)
    return logits_BTV if self.cap is None else self.cap * jnp.tanh(logits_BTV / self.cap)
