"""Gaussian error linear units and two approximations."""

import dataclasses

import jax

from tfm.parts.act.base import Act


@dataclasses.dataclass(frozen=True)
class Gelu(Act):
  """Gaussian error linear unit, x Phi(x), computed with erf (arXiv:1606.08415)."""

  def value(self, x):
    return jax.nn.gelu(x, approximate=False)


@dataclasses.dataclass(frozen=True)
class GeluTanh(Act):
  """Tanh approximation of GELU, as in GPT-2 (arXiv:1606.08415).

  Computes x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
  """

  def value(self, x):
    return jax.nn.gelu(x, approximate=True)


@dataclasses.dataclass(frozen=True)
class QuickGelu(Act):
  """Sigmoid approximation of GELU, x sigmoid(1.702 x), as in CLIP (arXiv:1606.08415)."""

  def value(self, x):
    return x * jax.nn.sigmoid(1.702 * x)
