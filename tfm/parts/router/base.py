"""Routers: which experts see a token, and how much of each is taken."""

from collections.abc import Iterator, Mapping
import dataclasses
from fractions import Fraction
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from tfm.core.registry import Part


@struct.dataclass
class Route:
  """The experts of each token: `expert_BTC` their numbers (E: none), `weight_BTC` float32; `aux`
  joins the loss.

  `most` is how many of a row's choices can at most be experts.
  """

  expert_BTC: jax.Array
  weight_BTC: jax.Array
  aux: jax.Array
  most: int = struct.field(pytree_node=False)


@dataclasses.dataclass(frozen=True)
class Router(Part):
  """`make(dims)` returns a module `(x_BTD, real_BT) -> Route` over `dims.experts`; padding (not
  real) goes nowhere.

  `balance` and `z` weigh two losses that are means over real tokens: E sum_e f_e P_e with f the
  share of the choices and P the mean score of an expert (arXiv:2101.03961: 1 if all are alike), and
  log^2 sum_e exp logit_e (arXiv:2202.08906).

  *Differs*: transformers sums f over the k choices of a token, so its factor is 1 / k of this one,
  and takes f and P over all layers at once; here the losses of layers add up."""

  balance: float = 0.01
  z: float = 0.001

  @property
  def causal(self) -> bool:
    """True if no choice depends on later tokens."""
    return True

  @property
  def apart(self) -> bool:
    """True if a token's choices depend on that token alone."""
    return True

  @property
  def reads(self) -> frozenset[str]:
    """The extras of `TokenInfo` that its module takes, in alphabetical order, after `real_BT`."""
    return frozenset()

  def active(self, experts: int) -> Fraction:
    """The share of the experts that a token sees, on average."""
    raise AssertionError(f'{type(self).__name__} must say how many experts it chooses')

  def fits(self, experts: int) -> Iterator[str]:
    """Yields a sentence for everything that keeps it from choosing among so many experts."""
    del experts
    yield from ()

  def check_inputs(self, inputs: Mapping[str, Any], experts: int) -> Iterator[str]:
    """Yield a sentence for each reason why it cannot choose among experts for tokens with these
    inputs.
    """
    yield from ()

  def make(self, dims: Any) -> Any:
    """The module."""
    raise AssertionError(f'{type(self).__name__} must make a module')

  def updated(self, params: Any, load: Any) -> Any:
    """The parameters after a step, `load` being what the module has sown, summed over the tokens of
    the step.
    """
    del load
    return params

  def check(self) -> Iterator[str]:
    for name in ('balance', 'z'):
      if (value := getattr(self, name)) < 0:
        yield f'{name}: is {value}. Expected 0 or more.'


def losses(
  spec: Router, logits_BTE: jax.Array, score_BTE: jax.Array, load_E: jax.Array, real_BT: jax.Array
) -> jax.Array:
  """The weighted sum of a router's two losses; `score_BTE` sums to 1 over the experts."""
  E, tokens = logits_BTE.shape[-1], jnp.maximum(jnp.sum(real_BT), 1)
  mean = lambda x, axes: (
    jnp.sum(jnp.where(real_BT.reshape(*real_BT.shape, *(1,) * (x.ndim - 2)), x, 0), axes) / tokens
  )
  share_E = load_E / jnp.maximum(jnp.sum(load_E), 1)
  balance = E * jnp.sum(jax.lax.stop_gradient(share_E) * mean(score_BTE, (0, 1)))
  z = mean(jax.nn.logsumexp(logits_BTE, -1) ** 2, (0, 1))
  return spec.balance * balance + spec.z * z


def load(expert_BTC: jax.Array, E: int) -> jax.Array:
  """float32 `[E]`: how many choices went to each expert."""
  return jnp.sum(
    expert_BTC[..., None] == jnp.arange(E).reshape(1, 1, 1, E), (0, 1, 2), dtype=jnp.float32
  )
