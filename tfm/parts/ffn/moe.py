"""A mixture of experts: many feed-forwards, of which each token sees a few. Routers are in
`tfm.parts.router`.
"""

from collections.abc import Iterator
import dataclasses
import functools
import math
from typing import Any, Literal

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from tfm.core.axes import letters_of, mesh_axes
from tfm.core.module import Module
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense
from tfm.parts.ffn.base import FFN
from tfm.parts.ffn.glu import Glu
from tfm.parts.router.base import Route, Router
from tfm.parts.router.top_k import TopK
from tfm.parts.tokeninfo import TokenInfo

Params = Any


@dataclasses.dataclass(frozen=True)
class Moe(FFN):
  """sum_e g_e FFN_e(x) over the experts e that the router chooses, plus a shared FFN(x) if there is
  one.

  `shared` is one feed-forward that every token sees (DeepSeekMoE's n shared experts are one, n
  times as wide). With `shared_gate` a token takes sigmoid(x w) of it (Qwen2's).

  With `capacity` an expert takes no more than ceil(T k capacity / E) of the choices of a row of T,
  in the order of its tokens, and the others come to nothing (Switch, GShard). What a token gets
  then depends on what else is in its row, so such a model trains but does not generate. None drops
  nothing, at the cost of what is chosen. `slots` says the same as a number of choices, whatever the
  length of the row (Switch's released models).

  `scaled` says what g_e multiplies, the output of the expert or its input (FFN_e(g_e x), Llama 4).
  """

  experts: int = 8
  router: Router = TopK()
  expert: FFN = Glu()
  shared: FFN | None = None
  capacity: float | None = None
  shared_gate: bool = False
  slots: int | None = None
  scaled: Literal['output', 'input'] = 'output'

  @property
  def causal(self):
    return self.router.causal

  @property
  def apart(self):
    return self.capacity is None and self.slots is None and self.router.apart

  @property
  def reads(self):
    return self.router.reads

  @property
  def active(self):
    return self.router.active(self.experts)

  def check_inputs(self, inputs):
    yield from self.router.check_inputs(inputs, self.experts)

  def make(self, dims):
    return _Moe(self, dims)

  def flops(self, d_model):
    shared = (
      0 if self.shared is None else self.shared.flops(d_model) + 2 * d_model * self.shared_gate
    )
    return int(
      2 * d_model * self.experts + self.active * self.experts * self.expert.flops(d_model) + shared
    )

  def updated(self, params, load):
    return params | {'router': self.router.updated(params['router'], load['router'])}

  def fits(self, d_model):
    if self.shared is not None:
      yield from (f'shared: {sentence}' for sentence in self.shared.fits(d_model))

  def check(self) -> Iterator[str]:
    if self.experts < 1:
      yield f'experts: {self.experts} experts are none. Expected 1 or more.'
      return
    yield from (f'router.{sentence}' for sentence in self.router.fits(self.experts))
    if not self.expert.stackable:
      name = self.expert.table().name_of(self.expert)
      wanted = ', '.join(n for n, row in self.expert.table().items() if row.stackable)
      yield f'expert: {name} cannot be stacked to experts. Expected one of {wanted}.'
    if self.shared_gate and self.shared is None:
      yield 'shared_gate: gates nothing. Expected a shared feed-forward, or shared_gate=no.'
    if self.capacity is not None and self.capacity <= 0:
      yield f'capacity: is {self.capacity}. Expected more than 0, or none to drop nothing.'
    if self.slots is not None and self.slots < 1:
      yield f'slots: is {self.slots}. Expected 1 or more, or none to drop nothing.'
    if self.slots is not None and self.capacity is not None:
      yield f'slots: is {self.slots}, and capacity is {self.capacity}: both say how much an expert takes. Expected one.'
    for name in ('capacity', 'slots'):
      if getattr(self, name) is not None and not self.router.causal:
        yield f'{name}: is {getattr(self, name)}, and the router fills its experts evenly. Expected none.'


class _Moe(Module):
  spec: Moe
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx) -> tuple[jax.Array, jax.Array]:
    s, E, real_BT = self.spec, self.spec.experts, ctx.info.segment_ids > 0
    extras = [ctx.info.get(name) for name in sorted(s.router.reads)]
    route = s.router.make(self.dims.replace(experts=E)).copy(name='router')(x_BTD, real_BT, *extras)
    if s.capacity is not None:
      k = s.active * E
      route = within(route, E, math.ceil(x_BTD.shape[1] * k * s.capacity / E))
    if s.slots is not None:
      route = within(route, E, s.slots)
    expert = s.expert.make(self.dims)
    start = lambda key: expert.init(key, x_BTD[:1, :1], _ctx(jnp.zeros(E, jnp.int32), 1, ctx))[
      'params'
    ]
    # Flax would compare shapes at each call, for which it starts the experts again.
    params = (
      self.param('expert', start)
      if self.is_initializing()
      else nn.unbox(self.get_variable('params', 'expert'))
    )
    keys = {'dropout': self.make_rng('dropout')} if self.has_rng('dropout') else {}

    def apply(
      params: Params, rows_BTD: jax.Array, sizes_E: jax.Array, rngs: dict[str, jax.Array]
    ) -> jax.Array:
      y_BTD, _ = expert.apply(
        {'params': params}, rows_BTD, _ctx(sizes_E, rows_BTD.shape[1], ctx), rngs=rngs
      )
      return y_BTD

    y_BTD = x_BTD
    if not self.is_initializing():
      part = functools.partial(mixed, apply, route.most, s.scaled)
      letters = letters_of(jax.eval_shape(start, jax.random.key(0)))
      y_BTD = _spread_over_mesh(part, E, letters)(x_BTD, route, params, keys)
    if s.shared is not None:
      shared_BTD, _ = s.shared.make(self.dims).copy(name='shared')(x_BTD, ctx)
      if s.shared_gate:
        gate_BT = jax.nn.sigmoid(
          Dense('D', (self.dims.d_model,), self.dims, name='shared_gate')(x_BTD)
        )
        shared_BTD = gate_BT[..., None] * shared_BTD
      y_BTD = y_BTD + shared_BTD
    return y_BTD, route.aux


def _ctx(sizes_E: jax.Array, rows: int, ctx: Ctx) -> Ctx:
  zeros_BT = jnp.zeros((1, rows), jnp.int32)
  return Ctx(TokenInfo(zeros_BT, zeros_BT + 1), train=ctx.train, sizes_E=sizes_E)


def within(route: Route, E: int, capacity: int) -> Route:
  """The route without the choices that come, in the order of a row's tokens, after `capacity`
  others of an expert.
  """
  B, T, C = route.expert_BTC.shape
  chosen = route.expert_BTC.reshape(B, T * C, 1) == jnp.arange(E).reshape(1, 1, E)
  place = jnp.sum(jnp.where(chosen, jnp.cumsum(chosen, axis=1), 0), -1).reshape(B, T, C)
  return dataclasses.replace(route, expert_BTC=jnp.where(place <= capacity, route.expert_BTC, E))


def mixed(
  apply: Any,
  most: int,
  scaled: str,
  first: Any,
  count: int,
  x_BTD,
  expert_BTC,
  weight_BTC,
  params,
  rngs,
) -> jax.Array:
  """sum_e g_e FFN_e(x) over the `count` experts from `first` on, whose parameters these are.

  The choices are sorted by expert, so that the rows of each are together: `apply` sees exactly
  those. With `scaled` 'input' it is FFN_e(g_e x)."""
  (B, T, D), C = x_BTD.shape, expert_BTC.shape[-1]
  expert = expert_BTC.reshape(-1) - first
  expert = jnp.where((expert >= 0) & (expert < count), expert, count)
  order = jnp.argsort(expert, stable=True)
  place = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)), unique_indices=True)
  order = order[: B * most]
  rows = spread(x_BTD.reshape(B * T, D), order // C, place.reshape(B * T, C))
  weights = spread(weight_BTC.reshape(-1, 1), order, place[:, None]).astype(rows.dtype)
  sizes_E = jnp.sum(expert[:, None] == jnp.arange(count)[None], 0, dtype=jnp.int32)
  if scaled == 'input':
    y = apply(params, (rows * weights)[None], sizes_E, rngs)[0]
  else:
    y = apply(params, rows[None], sizes_E, rngs)[0] * weights
  return collected(y, order // C, place.reshape(B * T, C)).reshape(B, T, D)


@jax.custom_vjp
def spread(x: jax.Array, token: jax.Array, place: jax.Array) -> jax.Array:
  """x[token]: a token's numbers wherever it is wanted. `place[n]` are the rows that token n went
  to.

  It and `collected` are each other's gradient: both read by index, where autodiff would write by
  index, row by row."""
  del place
  return x[token]


@jax.custom_vjp
def collected(rows: jax.Array, token: jax.Array, place: jax.Array) -> jax.Array:
  """The sum of the rows of each token; places beyond the rows are nothing."""
  del token
  found = rows.at[place].get(mode='fill', fill_value=0)
  return jnp.sum(found, 1, dtype=jnp.promote_types(rows.dtype, jnp.float32)).astype(rows.dtype)


spread.defvjp(
  lambda x, t, p: (spread(x, t, p), (t, p)), lambda res, g: (collected(g, *res), None, None)
)
collected.defvjp(
  lambda x, t, p: (collected(x, t, p), (t, p)), lambda res, g: (spread(g, *res), None, None)
)


def _spread_over_mesh(part: Any, E: int, letters: Any) -> Any:
  """`(x_BTD, route, params, rngs) -> y_BTD` by `part`, every device its own tokens and its own
  experts.

  Where tokens and experts are split over the same mesh axis, tokens are gathered along it and
  results summed and split again; along an axis of experts only, results are summed. Other axes of
  the experts' parameters are gathered."""

  def run(x_BTD: jax.Array, route: Route, params: Params, rngs: dict[str, jax.Array]) -> jax.Array:
    (tokens,), (experts,) = mesh_axes('B', x_BTD.shape[:1]), mesh_axes('E', (E,))
    places = jax.tree.map(lambda p, axes: jax.P(*mesh_axes(axes, p.shape)), params, letters)
    if not tokens and not any(
      any(place) for place in jax.tree.leaves(places, is_leaf=lambda p: isinstance(p, jax.P))
    ):
      return part(0, E, x_BTD, route.expert_BTC, route.weight_BTC, params, rngs)
    both = tuple(n for n in tokens if n in experts)
    alone = tuple(n for n in experts if n not in tokens)

    def local(x_BTD, expert_BTC, weight_BTC, params, rngs):
      params = jax.tree.map(_whole, params, places)
      if both:
        x_BTD, expert_BTC, weight_BTC = (
          _gather(a, both, 0) for a in (x_BTD, expert_BTC, weight_BTC)
        )
      count = len(jax.tree.leaves(params)[0])
      first = lax.axis_index(experts) * count if experts else 0
      rngs = {
        name: jax.random.fold_in(key, lax.axis_index(tokens + alone)) for name, key in rngs.items()
      }
      y_BTD = part(first, count, x_BTD, expert_BTC, weight_BTC, params, rngs)
      y_BTD = lax.psum(y_BTD, alone) if alone else y_BTD
      return lax.psum_scatter(y_BTD, both, scatter_dimension=0, tiled=True) if both else y_BTD

    rows = jax.P(tokens)
    specs = (rows, rows, rows, places, jax.P())
    split = jax.shard_map(local, in_specs=specs, out_specs=rows, check_vma=False)
    return split(x_BTD, route.expert_BTC, route.weight_BTC, params, rngs)

  return run


def _whole(p: jax.Array, place: jax.P) -> jax.Array:
  """The parameter, gathered along every axis but that of the experts."""
  for axis, names in enumerate(place):
    p = _gather(p, names, axis) if axis and names else p
  return p


def _gather(x: jax.Array, names: tuple[str, ...], axis: int) -> jax.Array:
  return lax.all_gather(x, names, axis=axis, tiled=True)
