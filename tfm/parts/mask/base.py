"""Who may look at whom: predicates on two tokens' sites, joined by `&`."""

import dataclasses

import jax
import jax.numpy as jnp

from tfm.core.registry import Part
from tfm.parts.site import Site


@dataclasses.dataclass(frozen=True)
class Mask(Part):
  """Everybody sees everybody: the full mask.

  A mask is called with sites that broadcast against each other (queries `[B, T, 1]`, keys `[B, 1, S]`, or a kernel's
  tiles of them) and returns where looking is allowed. Padding and other documents are out of sight whatever the mask:
  attention joins every mask with `Segments`.
  """

  def __call__(self, q: Site, k: Site) -> jax.Array:
    return jnp.ones(jnp.broadcast_shapes(q.pos.shape, k.pos.shape), bool)

  @property
  def causal(self) -> bool:
    """True if no token can see a later one of its document."""
    return False

  @property
  def reads_prefix(self) -> bool:
    """True if the mask needs the sites' `prefix`."""
    return False

  def __and__(self, other: 'Mask') -> 'Mask':
    return Both(self, other)

  @classmethod
  def from_text(cls, text: str) -> 'Mask':
    """`'causal'`, or several joined: `'causal&window'` (fields then go by `left` and `right`)."""
    first, *rest = (cls.table()[name.strip()]() for name in text.split('&'))
    for mask in rest:
      first = first & mask
    return first


@dataclasses.dataclass(frozen=True)
class Both(Mask):
  """Allowed by `left` and by `right`."""

  left: Mask = Mask()
  right: Mask = Mask()

  def __call__(self, q, k):
    return self.left(q, k) & self.right(q, k)

  @property
  def causal(self):
    return self.left.causal or self.right.causal

  @property
  def reads_prefix(self):
    return self.left.reads_prefix or self.right.reads_prefix
