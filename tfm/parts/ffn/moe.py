"""Mixture of experts. The routers are in `tfm.parts.router`."""

from collections.abc import Callable, Iterator
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
      params: Params, x_BTD: jax.Array, sizes_E: jax.Array, rngs: dict[str, jax.Array]
    ) -> jax.Array:
      expert_ctx = _expert_context(sizes_E, x_BTD.shape[1], ctx)
      return expert.apply({'params': params}, x_BTD, expert_ctx, rngs=rngs)[0]

    y_BTD = x_BTD
    if not self.is_initializing():
      run = functools.partial(run_experts, apply, route.max_choices, s.scaled)
      letters = letters_of(jax.eval_shape(start, jax.random.key(0)))
      y_BTD = _over_mesh(run, E, letters)(x_BTD, route, params, keys)
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
  return dataclasses.replace(route, expert_BTC=jnp.where(place <= capacity, route.expert_BTC, E))


def run_experts(
  apply: Callable[..., jax.Array],
  max_choices: int,
  scaled: str,
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
    apply: function `(params, tokens, sizes_E, rngs)` that runs all experts of the range.
    max_choices: largest number of choices of a sequence.
    scaled: as `Moe.scaled`.
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
  if scaled == 'input':
    y = apply(params, (x * weights)[None], sizes_E, rngs)[0]
  else:
    y = apply(params, x[None], sizes_E, rngs)[0] * weights
  return sum_choices(y, order // C, place.reshape(B * T, C)).reshape(B, T, D)


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


def _over_mesh(run_local: Callable[..., jax.Array], E: int, letters: Any) -> Any:
  """Return `(x_BTD, route, params, rngs) -> y_BTD`, which splits tokens and experts over the mesh.

  Along a mesh axis of both tokens and experts, tokens are gathered and results reduce-scattered.
  Along an axis of experts only, results are summed. Other axes of the parameters are gathered.
  """

  def run(x_BTD: jax.Array, route: Route, params: Params, rngs: dict[str, jax.Array]) -> jax.Array:
    (tokens,), (experts,) = mesh_axes('B', x_BTD.shape[:1]), mesh_axes('E', (E,))
    is_stored = lambda p: isinstance(p, Stored)
    places = jax.tree.map(_place, params, letters, is_leaf=is_stored)
    is_place = lambda p: isinstance(p, jax.P)
    if not tokens and not any(map(any, jax.tree.leaves(places, is_leaf=is_place))):
      return run_local(0, E, x_BTD, route.expert_BTC, route.weight_BTC, params, rngs)
    both = tuple(n for n in tokens if n in experts)
    alone = tuple(n for n in experts if n not in tokens)

    def local(x_BTD, expert_BTC, weight_BTC, params, rngs):
      params = jax.tree.map(_gather_param, params, places, is_leaf=is_stored)
      if both:
        x_BTD = _gather(x_BTD, both, 0)
        expert_BTC, weight_BTC = _gather(expert_BTC, both, 0), _gather(weight_BTC, both, 0)
      count = len(jax.tree.leaves(params)[0])
      first = lax.axis_index(experts) * count if experts else 0
      device = lax.axis_index(tokens + alone)
      rngs = {name: jax.random.fold_in(key, device) for name, key in rngs.items()}
      y_BTD = run_local(first, count, x_BTD, expert_BTC, weight_BTC, params, rngs)
      y_BTD = lax.psum(y_BTD, alone) if alone else y_BTD
      return lax.psum_scatter(y_BTD, both, scatter_dimension=0, tiled=True) if both else y_BTD

    batch = jax.P(tokens)
    specs = (batch, batch, batch, places, jax.P())
    split = jax.shard_map(local, in_specs=specs, out_specs=batch, check_vma=False)
    return split(x_BTD, route.expert_BTC, route.weight_BTC, params, rngs)

  return run


def _place(p: Any, letters: str) -> jax.P:
  """Return the mesh axes of a parameter. Arrays of a stored weight are split by experts only."""
  if isinstance(p, Stored):
    return jax.P(*mesh_axes('E', jax.tree.leaves(p)[0].shape[:1]))
  return jax.P(*mesh_axes(letters, p.shape))


def _gather_param(p: Any, place: jax.P) -> Any:
  """Gather a parameter along all its axes but that of the experts."""
  for axis, names in enumerate(place):
    p = _gather(p, names, axis) if axis and names else p
  return p


def _gather(x: jax.Array, names: tuple[str, ...], axis: int) -> jax.Array:
  return lax.all_gather(x, names, axis=axis, tiled=True)
