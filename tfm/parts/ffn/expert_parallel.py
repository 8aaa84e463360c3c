"""Mixtures of experts over a mesh: tokens travel to the devices of their experts."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from tfm.core.axes import device_count, mesh_axes, split_axes
from tfm.parts.ffn.sliced import SplitWeight, gather
from tfm.parts.router.base import Route
from tfm.parts.stored import Stored

Params = Any


class Experts(NamedTuple):
  """The static arguments of `moe.run_experts`.

  Attributes:
    apply: function `(params, tokens, sizes_E, rngs, scale_r1)` that runs a range of experts.
    sliced: whether the experts are sliced, for a number of choices on a device and its parameters.
      They then multiply their hidden layer by `scale_r1`, and gather their weights themselves.
    scaled: as `Moe.scaled`.
  """

  apply: Callable[..., jax.Array]
  sliced: Callable[[int, Params], bool]
  scaled: str


def over_mesh(
  call: Experts, run_experts: Callable[..., jax.Array], E: int, letters: Any
) -> Callable[..., jax.Array]:
  """Return `(x_BTD, route, params, rngs) -> y_BTD`, which splits tokens and experts over the mesh.

  Along mesh axes of both tokens and experts, each token goes to the devices of its experts by an
  all-to-all, and its results return by another. A token that chooses several experts of a device
  is sent once. Buffers have a fixed size, the largest number of tokens that can choose the experts
  of one device: with a capacity c, B T k c / n tokens for each of n devices, and all tokens of the
  device if no choice is dropped.

  Along an axis of experts only, results are summed. Parameters are gathered along the other axes of
  tokens (fsdp); an expert that is sliced gathers each slice itself.

  Args:
    call: the function of the experts, and options.
    run_experts: `moe.run_experts`.
    E: number of experts.
    letters: axis letters of the parameters.

  Returns:
    The function.
  """

  def run(x_BTD: jax.Array, route: Route, params: Params, rngs: dict[str, jax.Array]) -> jax.Array:
    (rows, times), (experts,) = mesh_axes('BT', x_BTD.shape[:2]), mesh_axes('E', (E,))
    tokens = rows + times
    # XLA splits the products inside an expert over the other axes, such as tensor.
    manual = {*tokens, *experts}
    if not manual:
      arrays = x_BTD, route.expert_BTC, route.weight_BTC
      return run_experts(call, route.max_choices, 0, E, *arrays, params, rngs)
    alone = tuple(n for n in experts if n not in tokens)
    is_stored = lambda p: isinstance(p, Stored)
    place = lambda p, axes: _place(p, axes, manual)
    places = jax.tree.map(place, params, letters, is_leaf=is_stored)

    is_place = lambda p: isinstance(p, jax.P)
    inner = jax.tree.map(lambda place: jax.P((), *place[1:]), places, is_leaf=is_place)

    def local(x_BTD, expert_BTC, weight_BTC, params, rngs):
      count = len(jax.tree.leaves(params)[0])
      first = lax.axis_index(experts) * count if experts else 0
      device = lax.axis_index(tokens + alone)
      rngs = {name: jax.random.fold_in(key, device) for name, key in rngs.items()}
      exchange = _Exchange.of(experts, tokens, E, x_BTD.shape, expert_BTC.shape[-1], route)
      arrays, back = exchange.send(x_BTD, expert_BTC, weight_BTC)
      choices = exchange.max_choices
      join = SplitWeight if call.sliced(len(arrays[0]) * choices, params) else gather
      params = jax.tree.map(join, params, inner, is_leaf=is_stored)
      y_BTD = back(run_experts(call, choices, first, count, *arrays, params, rngs))
      return lax.psum(y_BTD, alone) if alone else y_BTD

    batch = jax.P(rows, times)
    specs = (batch, batch, batch, places, jax.P())
    run_split = jax.shard_map(
      local,
      in_specs=specs,
      out_specs=batch,
      axis_names=manual | {*split_axes('L')},
      check_vma=False,
    )
    return run_split(x_BTD, route.expert_BTC, route.weight_BTC, params, rngs)

  return run


class _Exchange(NamedTuple):
  """How the tokens of a device reach their experts.

  Attributes:
    names: the mesh axes of both tokens and experts.
    group_E: the index along `names` of each expert, and a last entry for no expert.
    groups: the number of devices along `names`.
    room: the largest number of tokens that a device sends to another.
    max_choices: the largest number of choices that a device computes, over its sequences.
  """

  names: tuple[str, ...]
  group_E: np.ndarray
  groups: int
  room: int
  max_choices: int

  @classmethod
  def of(
    cls,
    experts: tuple[str, ...],
    tokens: tuple[str, ...],
    E: int,
    shape: tuple[int, ...],
    C: int,
    route: Route,
  ) -> '_Exchange':
    """Return the exchange of a device.

    Args:
      experts: the mesh axes of experts.
      tokens: the mesh axes of tokens.
      E: number of experts.
      shape: the shape of `x_BTD` on a device.
      C: number of choices of a token.
      route: the choices, for their bounds.

    Returns:
      The exchange.
    """
    B, T, _ = shape
    sizes = jax.sharding.get_abstract_mesh().shape
    both = tuple(n for n in experts if n in tokens)
    groups, devices = device_count(both), device_count(experts)
    at = np.unravel_index(np.arange(E) // (E // devices), [sizes[n] for n in experts] or [1])
    kept = [i for n, i in zip(experts, at, strict=False) if n in both]
    group = np.zeros(E, int)
    if both:
      group = np.ravel_multi_index(kept, [sizes[n] for n in both])
    most = min(T, route.per_expert)
    room = min(B * T, B * most * (E // groups))
    if not both:
      return cls(both, group, 1, room, min(route.max_choices, T * C))
    per_device = E // devices
    choices = min(groups * room * min(C, per_device), groups * B * most * per_device)
    return cls(both, np.append(group, groups), groups, room, choices)

  def send(
    self, x_BTD: jax.Array, expert_BTC: jax.Array, weight_BTC: jax.Array
  ) -> tuple[tuple[jax.Array, ...], Callable[[jax.Array], jax.Array]]:
    """Return the tokens for the experts of this device, and a function that returns their results.

    Args:
      x_BTD: the tokens of this device.
      expert_BTC: expert numbers of their choices.
      weight_BTC: weights of their choices.

    Returns:
      ((x_BTD, expert_BTC, weight_BTC) of the received tokens, function of y_BTD).
    """
    if not self.names:
      return (x_BTD, expert_BTC, weight_BTC), lambda y_BTD: y_BTD
    flat = lambda a: a.reshape(-1, a.shape[-1])
    x_nD, expert_nC, weight_nC = map(flat, (x_BTD, expert_BTC, weight_BTC))
    E, slots = len(self.group_E) - 1, self.groups * self.room
    group_nC = jnp.asarray(self.group_E, jnp.int32)[expert_nC]
    goes_nG = jnp.any(group_nC[..., None] == jnp.arange(self.groups).reshape(1, 1, -1), 1)
    slot_nG = jnp.cumsum(goes_nG, 0) - 1 + self.room * jnp.arange(self.groups)[None]
    slot_nG = jnp.where(goes_nG, slot_nG, slots)
    index_nG = jnp.broadcast_to(jnp.arange(len(x_nD))[:, None], slot_nG.shape)
    token = jnp.zeros(slots, jnp.int32).at[slot_nG].set(index_nG, mode='drop')
    filled = jnp.zeros(slots, bool).at[slot_nG].set(True, mode='drop')
    moved = lambda a: lax.all_to_all(a, self.names, 0, 0, tiled=True)
    packed = (
      take_tokens(x_nD, token, slot_nG),
      jnp.where(filled[:, None], expert_nC[token], E),
      take_tokens(weight_nC, token, slot_nG),
    )
    received = tuple(moved(a)[None] for a in packed)
    back = lambda y_BTD: sum_choices(moved(y_BTD[0]), token, slot_nG).reshape(x_BTD.shape)
    return received, back


@jax.custom_vjp
def take_tokens(x: jax.Array, token: jax.Array, place: jax.Array) -> jax.Array:
  """Return x[token], the vector of each choice.

  The gradient is `sum_choices`. Both use indexed reads. Autodiff would use a scatter, which is
  slow.

  Args:
    x: vectors `[tokens, D]`.
    token: token of each choice, `[choices]`.
    place: choices of each token, `[tokens, C]`.

  Returns:
    `[choices, D]`.
  """
  del place
  return x[token]


@jax.custom_vjp
def sum_choices(choices: jax.Array, token: jax.Array, place: jax.Array) -> jax.Array:
  """Return the sum of the choices of each token; the gradient is `take_tokens`.

  Args:
    choices: vectors `[choices, D]`.
    token: token of each choice, `[choices]`.
    place: choices of each token, `[tokens, C]`. Indices out of range count as 0.

  Returns:
    `[tokens, D]`.
  """
  del token
  values = choices.at[place].get(mode='fill', fill_value=0)
  total = jnp.sum(values, 1, dtype=jnp.promote_types(choices.dtype, jnp.float32))
  return total.astype(choices.dtype)


take_tokens.defvjp(
  lambda x, t, p: (take_tokens(x, t, p), (t, p)), lambda res, g: (sum_choices(g, *res), None, None)
)
sum_choices.defvjp(
  lambda x, t, p: (sum_choices(x, t, p), (t, p)), lambda res, g: (take_tokens(g, *res), None, None)
)


def _place(p: Any, letters: str, names: set[str]) -> jax.P:
  """Return the partition of a parameter over the mesh axes `names`.

  Arrays of a stored weight are split by experts only.
  """
  kept = lambda axes: tuple(n for n in axes if n in names)
  if isinstance(p, Stored):
    return jax.P(*map(kept, mesh_axes('E', jax.tree.leaves(p)[0].shape[:1])))
  return jax.P(*map(kept, mesh_axes(letters, p.shape)))
