"""Mixture of experts. The routers are in `tfm.parts.router`."""

from collections.abc import Iterator
import dataclasses
import math
from typing import Any, Literal

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import letters_of
from tfm.core.module import Module
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense
from tfm.parts.ffn.base import FFN
from tfm.parts.ffn.expert_parallel import Experts, over_mesh, sum_choices, take_tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.router.base import Route, Router
from tfm.parts.router.top_k import TopK
from tfm.parts.stored import Stored
from tfm.parts.tokeninfo import TokenInfo

Params = Any


@dataclasses.dataclass(frozen=True)
class Moe(FFN):
  """Mixture of experts, sum_e g_e FFN_e(x) over the routed experts (arXiv:1701.06538).

  With `capacity` or `slots`, an expert takes a limited number of the choices of a sequence, in the
  order of its tokens. Choices beyond the limit are dropped (Switch, GShard). The output of a token
  then depends on other tokens, so the model trains but does not generate. By default no choice is
  dropped.

  Attributes:
    experts: number E of experts.
    router: selects the experts of a token and their weights g_e.
    expert: the feed-forward network of each expert.
    shared: a feed-forward network for every token, added to the sum (DeepSeekMoE: its n shared
      experts are one network, n times as wide).
    capacity: an expert takes ceil(T k capacity / E) choices per sequence of T tokens.
    shared_gate: multiply the shared network by sigmoid(x w) (Qwen2).
    slots: as `capacity`, as a number of choices per sequence of any length (the released Switch
      models).
    scaled: 'output' computes g_e FFN_e(x), 'input' computes FFN_e(g_e x) (Llama 4).
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
  def per_token(self):
    return self.capacity is None and self.slots is None and self.router.per_token

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
    flops = self.router.flops(d_model, self.experts)
    flops += self.active * self.experts * self.expert.flops(d_model)
    if self.shared is not None:
      flops += self.shared.flops(d_model) + 2 * d_model * self.shared_gate
    return int(flops)

  def updated(self, params, load):
    return params | {'router': self.router.updated(params['router'], load['router'])}

  def fits(self, d_model):
    if self.shared is not None:
      yield from (f'shared: {sentence}' for sentence in self.shared.fits(d_model))

  def check(self) -> Iterator[str]:
    if self.experts < 1:
      yield f'experts={self.experts} is too small. Expected at least 1.'
      return
    yield from (f'router: {sentence}' for sentence in self.router.fits(self.experts))
    if not self.expert.stackable:
      name = self.expert.table().name_of(self.expert)
      names = ', '.join(n for n, part in self.expert.table().items() if part().stackable)
      yield f'expert={name} cannot be used as an expert. Expected any of {names}, without a norm.'
    if self.shared_gate and self.shared is None:
      yield 'shared_gate=true without a shared network. Expected shared=glu, or shared_gate=false.'
    if self.capacity is not None and self.capacity <= 0:
      yield f'capacity={self.capacity} is too small. Expected more than 0, or none to drop nothing.'
    if self.slots is not None and self.slots < 1:
      yield f'slots={self.slots} is too small. Expected at least 1, or none to drop nothing.'
    if self.slots is not None and self.capacity is not None:
      yield (
        f'slots={self.slots} and capacity={self.capacity} both limit the choices of an expert. '
        'Expected only one.'
      )
    for name in ('capacity', 'slots'):
      if getattr(self, name) is not None and not self.router.causal:
        kind = self.router.table().name_of(self.router)
        yield (
          f'{name}={getattr(self, name)} limits the choices of an expert, and router={kind} '
          'already does. Expected none.'
        )


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
      route = limit_capacity(route, E, math.ceil(x_BTD.shape[1] * k * s.capacity / E))
    if s.slots is not None:
      route = limit_capacity(route, E, s.slots)
    expert = s.expert.make(self.dims)

    def start(key: jax.Array) -> Params:
      no_tokens = _expert_context(jnp.zeros(E, jnp.int32), 1, ctx)
      return expert.init(key, x_BTD[:1, :1], no_tokens)['params']

    if self.is_initializing():
      params = self.param('expert', start)
    else:  # `self.param` would initialize the experts again, to compare shapes
      params = nn.unbox(self.get_variable('params', 'expert'))
    keys = {'dropout': self.make_rng('dropout')} if self.has_rng('dropout') else {}

    def apply(
      params: Params,
      x: jax.Array,
      sizes_E: jax.Array,
      rngs: dict[str, jax.Array],
      scale_r1: jax.Array | None = None,
    ) -> jax.Array:
      expert_ctx = dataclasses.replace(_expert_context(sizes_E, len(x), ctx), scale_r1=scale_r1)
      return expert.apply({'params': params}, x[None], expert_ctx, rngs=rngs)[0][0]

    def sliced(rows: int, params: Params) -> bool:
      if 'gate' not in params or isinstance(params['gate']['kernel'], Stored):
        return False
      units = params['gate']['kernel'].shape[-1]
      return s.expert.slices(self.dims, rows, units, ctx.train) > 1

    y_BTD = x_BTD
    if not self.is_initializing():
      if not any(map(self.dims.rounding.wraps, params)):
        params = _cast_kernels(params, x_BTD.dtype)
      experts = Experts(apply, sliced, s.scaled)
      letters = letters_of(jax.eval_shape(start, jax.random.key(0)))
      y_BTD = over_mesh(experts, run_experts, E, letters)(x_BTD, route, params, keys)
    if s.shared is not None:
      y_BTD = y_BTD + self._shared(x_BTD, ctx)
    return y_BTD, route.aux

  def _shared(self, x_BTD: jax.Array, ctx: Ctx) -> jax.Array:
    s, dims = self.spec, self.dims
    assert s.shared is not None
    shared_BTD, _ = s.shared.make(dims).copy(name='shared')(x_BTD, ctx)
    if not s.shared_gate:
      return shared_BTD
    gate_BT = jax.nn.sigmoid(Dense('D', (dims.d_model,), dims, name='shared_gate')(x_BTD))
    return gate_BT[..., None] * shared_BTD


def _expert_context(sizes_E: jax.Array, length: int, ctx: Ctx) -> Ctx:
  zeros_BT = jnp.zeros((1, length), jnp.int32)
  return Ctx(TokenInfo(zeros_BT, zeros_BT + 1), train=ctx.train, sizes_E=sizes_E)


def limit_capacity(route: Route, E: int, capacity: int) -> Route:
  """Drop the choices of an expert beyond its capacity.

  Args:
    route: the choices of the router.
    E: number of experts.
    capacity: number of choices per sequence that an expert takes, in the order of tokens.

  Returns:
    The route, where a dropped choice has the expert number E.
  """
  B, T, C = route.expert_BTC.shape
  chosen = route.expert_BTC.reshape(B, T * C, 1) == jnp.arange(E).reshape(1, 1, E)
  place = jnp.sum(jnp.where(chosen, jnp.cumsum(chosen, axis=1), 0), -1).reshape(B, T, C)
  expert_BTC = jnp.where(place <= capacity, route.expert_BTC, E)
  return dataclasses.replace(
    route, expert_BTC=expert_BTC, per_expert=min(route.per_expert, capacity)
  )


def run_experts(
  experts: Experts,
  max_choices: int,
  first: int | jax.Array,
  count: int,
  x_BTD: jax.Array,
  expert_BTC: jax.Array,
  weight_BTC: jax.Array,
  params: Params,
  rngs: dict[str, jax.Array],
) -> jax.Array:
  """Return sum_e g_e FFN_e(x) over a range of experts.

  The choices are sorted by expert, and each expert computes exactly its own tokens.

  Args:
    experts: the function of the experts, and options.
    max_choices: largest number of choices of a sequence.
    first: number of the first expert of the range.
    count: number of experts in the range.
    x_BTD: the tokens.
    expert_BTC: expert numbers of each choice. Other experts are ignored.
    weight_BTC: weights g_e.
    params: parameters of the experts in the range.
    rngs: keys of dropout.

  Returns:
    An array with the shape and dtype of `x_BTD`.
  """
  (B, T, D), C = x_BTD.shape, expert_BTC.shape[-1]
  expert = expert_BTC.reshape(-1) - first
  expert = jnp.where((expert >= 0) & (expert < count), expert, count)
  order = jnp.argsort(expert, stable=True)
  place = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)), unique_indices=True)
  order = order[: B * max_choices]
  x = take_tokens(x_BTD.reshape(B * T, D), order // C, place.reshape(B * T, C))
  weights = take_tokens(weight_BTC.reshape(-1, 1), order, place[:, None]).astype(x.dtype)
  sizes_E = jnp.sum(expert[:, None] == jnp.arange(count)[None], 0, dtype=jnp.int32)
  if experts.scaled == 'input':
    y = experts.apply(params, x * weights, sizes_E, rngs)
  elif experts.sliced(B * max_choices, params):  # the gradient of `weights` then needs no output
    y = experts.apply(params, x, sizes_E, rngs, weights)
  else:
    y = experts.apply(params, x, sizes_E, rngs) * weights
  return sum_choices(y, order // C, place.reshape(B * T, C)).reshape(B, T, D)


def _cast_kernels(params: Params, dtype: Any) -> Params:
  """Return the parameters of experts with weights in the dtype of computation.

  Weights are then gathered in that dtype.
  """
  is_stored = lambda p: isinstance(p, Stored)

  def cast(path: Any, p: Any) -> Any:
    return p if is_stored(p) or path[-1].key != 'kernel' else p.astype(dtype)

  return jax.tree_util.tree_map_with_path(cast, params, is_leaf=is_stored)
