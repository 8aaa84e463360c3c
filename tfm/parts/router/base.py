"""Base class of routers, which select the experts of each token."""

from collections.abc import Iterator, Mapping
import dataclasses
from fractions import Fraction
import sys
from typing import TYPE_CHECKING, Any

from flax import struct
import jax
import jax.numpy as jnp

from tfm.core.registry import Part

if TYPE_CHECKING:
  from tfm.parts.context import Dims


@struct.dataclass
class Route:
  """The experts of each token, with weights.

  Attributes:
    expert_BTC: expert numbers of the C choices of each token; E is no expert.
    weight_BTC: weights of the choices, float32.
    aux: scalar added to the loss.
    max_choices: largest number of choices in a sequence that select an expert.
    per_expert: largest number of choices in a sequence that select the same expert.
  """

  expert_BTC: jax.Array
  weight_BTC: jax.Array
  aux: jax.Array
  max_choices: int = struct.field(pytree_node=False)
  per_expert: int = struct.field(pytree_node=False, default=sys.maxsize)


@dataclasses.dataclass(frozen=True)
class Router(Part):
  """Base class: selects experts for each token.

  `make(dims)` returns a module `(x_BTD, real_BT) -> Route` over `dims.experts` experts. Padding,
  where `real_BT` is false, is routed to no expert.

  The auxiliary losses are means over real tokens. The balance loss is E sum_e f_e P_e, with f the
  share of choices and P the mean score of an expert (arXiv:2101.03961). It is 1 if all are equal.
  The z-loss is log^2 sum_e exp logit_e (arXiv:2202.08906).

  Note:
    transformers sums f over the k choices of a token, so its factor is 1 / k of this one. It takes
    f and P over all layers together. Here the losses of the layers are summed.

  Attributes:
    balance: weight of the balance loss.
    z: weight of the z-loss.
  """

  balance: float = 0.01
  z: float = 0.001

  @property
  def causal(self) -> bool:
    """Whether choices are independent of later tokens."""
    return True

  @property
  def per_token(self) -> bool:
    """Whether the choices of a token depend on that token alone."""
    return True

  @property
  def reads(self) -> frozenset[str]:
    """The extras of `TokenInfo` that its module takes, in alphabetical order, after `real_BT`."""
    return frozenset()

  def active(self, experts: int) -> Fraction:
    """Return the mean share of the experts that a token uses."""
    raise AssertionError(f'{type(self).__name__} must return the share of experts')

  def fits(self, experts: int) -> Iterator[str]:
    """Yield a message for each reason why it cannot route to this number of experts."""
    del experts
    yield from ()

  def check_inputs(self, inputs: Mapping[str, Any], experts: int) -> Iterator[str]:
    """Yield a sentence for each reason why it cannot route tokens with these inputs."""
    yield from ()

  def flops(self, d_model: int, experts: int) -> float:
    """Return the FLOPs per token of the scores of all experts."""
    return 2.0 * d_model * experts

  def make(self, dims: 'Dims') -> Any:
    """Return the module."""
    raise AssertionError(f'{type(self).__name__} must make a module')

  def updated(self, params: Any, load: Any) -> Any:
    """Return the parameters after an optimizer step.

    `load` is the value that the module has stored, summed over the tokens of the step.
    """
    del load
    return params

  def check(self) -> Iterator[str]:
    for name in ('balance', 'z'):
      if (value := getattr(self, name)) < 0:
        yield f'{name}={value} is negative. Expected at least 0.'


def top_k(score: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
  """Return the k largest scores along the last axis, and their indices, the largest first.

  Over a mesh, this is a sort: XLA gathers the scores of all devices for `lax.top_k`.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return jax.lax.top_k(score, k)
  index = jax.lax.broadcasted_iota(jnp.int32, score.shape, score.ndim - 1)
  negative, index = jax.lax.sort((-score, index), num_keys=1)
  return -negative[..., :k], index[..., :k]


def losses(
  spec: Router, logits_BTE: jax.Array, score_BTE: jax.Array, load_E: jax.Array, real_BT: jax.Array
) -> jax.Array:
  """Return the weighted sum of the balance loss and the z-loss.

  Args:
    spec: the router, with the weights of the losses.
    logits_BTE: logits of the experts.
    score_BTE: scores that sum to 1 over the experts.
    load_E: number of choices of each expert.
    real_BT: false for padding.

  Returns:
    A float32 scalar.
  """
  E, tokens = logits_BTE.shape[-1], jnp.maximum(jnp.sum(real_BT), 1)
  mean_E = jnp.sum(jnp.where(real_BT[..., None], score_BTE, 0), (0, 1)) / tokens
  share_E = load_E / jnp.maximum(jnp.sum(load_E), 1)
  balance = E * jnp.sum(jax.lax.stop_gradient(share_E) * mean_E)
  z_BT = jax.nn.logsumexp(logits_BTE, -1) ** 2
  z = jnp.sum(jnp.where(real_BT, z_BT, 0), (0, 1)) / tokens
  return spec.balance * balance + spec.z * z


def expert_load(expert_BTC: jax.Array, E: int) -> jax.Array:
  """Return the number of choices of each expert, float32 `[E]`."""
  return jnp.sum(
    expert_BTC[..., None] == jnp.arange(E).reshape(1, 1, 1, E), (0, 1, 2), dtype=jnp.float32
  )
