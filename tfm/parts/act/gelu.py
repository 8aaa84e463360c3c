"""x times the normal distribution function, and two approximations (arXiv:1606.08415)."""

import dataclasses

import jax

from tfm.parts.act.base import Act


@dataclasses.dataclass(frozen=True)
class Gelu(Act):
  """x Phi(x), by erf (BERT)."""

  def value(self, x):
    return jax.nn.gelu(x, approximate=False)


@dataclasses.dataclass(frozen=True)
class GeluTanh(Act):
  """x/2 (1 + tanh(sqrt(2/pi) (x + .044715 x^3))) (GPT-2)."""

  def value(self, x):
    return jax.nn.gelu(x, approximate=True)


@dataclasses.dataclass(frozen=True)
class QuickGelu(Act):
  """x sigmoid(1.702 x) (CLIP)."""

  def value(self, x):
    return x * jax.nn.sigmoid(1.702 * x)
