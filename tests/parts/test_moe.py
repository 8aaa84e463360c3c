"""Mixtures of experts: identities, routers against their formulas, capacity, losses, refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.generate import generate
from tfm.model import transformer
from tfm.model.spec import Block, Model, Segment
from tfm.parts import init
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu, Mlp, Moe
from tfm.parts.ffn.moe import within
from tfm.parts.mixer import Attention
from tfm.parts.router import ExpertChoice, Grouped, TopK
from tfm.parts.router.base import Route
from tfm.parts.tokeninfo import TokenInfo
from tfm.tasks import CausalLM

D, E, B, T = 16, 8, 2, 10
DIMS = Dims(D, 2, init.FanIn(), Run())
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(B, T, D)), jnp.float32)


def ctx(segment_BT=None):
  pos_BT = jnp.broadcast_to(jnp.arange(T), (B, T))
  return Ctx(TokenInfo(pos_BT, jnp.ones((B, T), jnp.int32) if segment_BT is None else segment_BT))


def start(part, seed=0):
  """The parameters of a part, biases drawn too."""
  from flax import linen as nn

  params = nn.unbox(part.make(DIMS).init(jax.random.key(seed), X, ctx())['params'])
  rng = np.random.default_rng(1)
  noisy = lambda path, p: (
    p + rng.normal(size=p.shape).astype('f4') * 0.1 if path[-1].key == 'bias' else p
  )
  return jax.tree_util.tree_map_with_path(noisy, params)


def run(part, params, x=X, where=None):
  return jax.jit(lambda p, x: part.make(DIMS).apply({'params': p}, x, where or ctx())[0])(params, x)


def routed(router, x=X, real=None, params=None, experts=E):
  dims = DIMS.replace(experts=experts)
  real = jnp.ones(x.shape[:2], bool) if real is None else real
  module = router.make(dims)
  params = module.init(jax.random.key(0), x, real) if params is None else {'params': params}
  return jax.jit(module.apply)(params, x, real)


def stacked(params, n=E):
  return jax.tree.map(lambda p: jnp.repeat(p[None], n, axis=0), params)


FFNS = {'glu': Glu(24), 'biased': Glu(24, bias=True), 'mlp': Mlp(24)}


@pytest.mark.parametrize('name', FFNS)
def test_one_expert_is_that_feed_forward(name):
  ffn = FFNS[name]
  moe, params = Moe(1, TopK(k=1, renormalize=False), ffn), start(ffn)
  mixture = start(moe) | {'expert': stacked(params, 1)}
  np.testing.assert_allclose(run(moe, mixture), run(ffn, params), atol=1e-5)


@pytest.mark.parametrize('router', [TopK(k=3), Grouped()])
@pytest.mark.parametrize('name', FFNS)
def test_experts_that_are_alike_are_one_dense_feed_forward(name, router):
  ffn = FFNS[name]
  moe, params = Moe(E, router, ffn), start(ffn)
  np.testing.assert_allclose(
    run(moe, start(moe) | {'expert': stacked(params)}), run(ffn, params), atol=1e-5
  )


def all_experts(moe, params, x, route):
  """sum_e g_e FFN_e(x), every token through every expert."""
  one = lambda p: moe.expert.make(DIMS).apply({'params': p}, x, ctx())[0]
  y_EBTD = jax.vmap(one)(params['expert'])
  gate = jnp.sum(jax.nn.one_hot(route.expert_BTC, moe.experts) * route.weight_BTC[..., None], 2)
  return jnp.einsum('EBTD,BTE->BTD', y_EBTD, gate)


ROUTERS = {
  'softmax': TopK(k=2),
  'sigmoid': TopK(0, 0, 3, 'sigmoid', False, 2.5),
  'grouped': Grouped(k=3),
  'expert_choice': ExpertChoice(),
}
KEPT = ('glu', 'softmax'), ('glu', 'grouped'), ('glu', 'expert_choice'), ('biased', 'grouped')


@pytest.mark.parametrize('router', ROUTERS)
@pytest.mark.parametrize('ffn', FFNS)
@pytest.mark.large(when=lambda ffn, router: (ffn, router) not in KEPT)
def test_nothing_is_dropped_and_gradients_are_those_of_all_experts_run(ffn, router):
  moe = Moe(E, ROUTERS[router], FFNS[ffn])
  params, weights = start(moe), jnp.asarray(RNG.normal(size=X.shape), jnp.float32)

  def dense(params, x):
    dims = DIMS.replace(experts=E)
    route = moe.router.make(dims).apply({'params': params['router']}, x, jnp.ones((B, T), bool))
    return all_experts(moe, params, x, route)

  ours = lambda params, x: moe.make(DIMS).apply({'params': params}, x, ctx())[0]
  for f, g in ((ours, dense),):
    np.testing.assert_allclose(jax.jit(f)(params, X), jax.jit(g)(params, X), atol=1e-5)
    grads = [
      jax.jit(jax.grad(lambda p, x, h=h: jnp.sum(weights * h(p, x)), (0, 1)))(params, X)
      for h in (f, g)
    ]
    for a, b in zip(*map(jax.tree.leaves, grads), strict=True):
      np.testing.assert_allclose(a, b, atol=2e-5)


def test_a_shared_expert_sees_every_token():
  moe = Moe(E, TopK(), Glu(24), Mlp(12))
  params = start(moe)
  routed_alone = run(
    dataclasses.replace(moe, shared=None), {k: v for k, v in params.items() if k != 'shared'}
  )
  np.testing.assert_allclose(
    run(moe, params), routed_alone + run(Mlp(12), params['shared']), atol=1e-5
  )


def test_weights_of_mixtral_are_the_softmax_of_the_two_largest_logits():
  router = TopK(k=2)
  module = router.make(DIMS.replace(experts=E))
  params = module.init(jax.random.key(0), X, jnp.ones((B, T), bool))
  logits = np.asarray(X @ params['params']['score']['kernel'].value)
  top = np.sort(logits, -1)[..., ::-1][..., :2]
  route = routed(router, params=params['params'])
  np.testing.assert_array_equal(route.expert_BTC, np.argsort(-logits, -1)[..., :2])
  np.testing.assert_allclose(route.weight_BTC, jax.nn.softmax(top), atol=1e-6)


def test_only_the_best_groups_are_chosen_from():
  router = Grouped(k=2, groups=4, keep=1)
  route = routed(router)
  assert (np.asarray(route.expert_BTC) // 2 == np.asarray(route.expert_BTC[..., :1]) // 2).all()


def test_a_bias_changes_who_is_chosen_and_never_the_weight_of_a_chosen_one():
  router = Grouped(k=3, groups=2, keep=2, renormalize=False)
  kernel = {'score': {'kernel': jnp.asarray(RNG.normal(size=(D, E)), jnp.float32)}}
  plain = routed(router, params=kernel | {'bias': jnp.zeros(E)})
  moved = routed(router, params=kernel | {'bias': jnp.zeros(E).at[5].set(10.0)})
  assert (np.asarray(moved.expert_BTC) == 5).any(-1).all()
  assert not (np.asarray(plain.expert_BTC) == 5).any(-1).all()
  gates = [
    np.asarray(jnp.sum(jax.nn.one_hot(r.expert_BTC, E) * r.weight_BTC[..., None], 2))
    for r in (plain, moved)
  ]
  both = (gates[0] > 0) & (gates[1] > 0)
  assert both.sum() > B * T
  np.testing.assert_array_equal(gates[0][both], gates[1][both])
  grad = jax.grad(lambda b: jnp.sum(routed(router, params=kernel | {'bias': b}).weight_BTC))(
    jnp.zeros(E)
  )
  assert not np.asarray(grad).any()


def test_an_expert_takes_its_share_of_each_row_and_padding_is_not_of_it():
  real = jnp.arange(T)[None] < jnp.asarray([[T], [4]])
  taken = np.asarray(routed(ExpertChoice(capacity=2.0), real=real).expert_BTC) < E
  # ceil(10 * 2 / 8) = 3 of the first row, ceil(4 * 2 / 8) = 1 of the second.
  assert (taken.sum(1) == [[3] * E, [1] * E]).all()
  assert not taken[1, 4:].any()


def test_padding_goes_to_no_expert_takes_no_room_and_counts_in_no_loss():
  segment = jnp.ones((B, T), jnp.int32).at[0, :4].set(0)
  other = X.at[0, :4].set(7.0)
  for moe in (Moe(E, TopK(), Glu(24)), Moe(E, TopK(), Glu(24), capacity=0.5)):
    params = start(moe)
    apply = jax.jit(
      lambda x, moe=moe, params=params: moe.make(DIMS).apply({'params': params}, x, ctx(segment))
    )
    (y, aux), (other_y, other_aux) = apply(X), apply(other)
    assert not np.asarray(y)[0, :4].any()
    np.testing.assert_array_equal(y[0, 4:], other_y[0, 4:])
    assert float(aux) == float(other_aux) > 0


def test_what_is_beyond_the_capacity_is_dropped_in_the_order_of_tokens():
  choices = jnp.asarray([[[0, 1], [0, 2], [3, 0], [0, 1]], [[0, 1], [1, 3], [1, 2], [2, 0]]])
  route = within(Route(choices, jnp.ones((2, 4, 2)), jnp.zeros(()), 8), 4, 2)
  # None is written 4.
  expected = [[[0, 1], [0, 2], [3, 4], [4, 1]], [[0, 1], [1, 3], [4, 2], [2, 0]]]
  np.testing.assert_array_equal(route.expert_BTC, expected)


def test_a_large_capacity_drops_nothing():
  moe = Moe(E, TopK(), Glu(24))
  params = start(moe)
  np.testing.assert_array_equal(
    run(dataclasses.replace(moe, capacity=float(E)), params), run(moe, params)
  )
  assert not np.allclose(run(dataclasses.replace(moe, capacity=0.3), params), run(moe, params))


def test_slots_are_a_capacity_that_does_not_grow_with_the_row():
  moe = Moe(4, TopK(k=1, renormalize=False), Glu(24))
  params = start(moe)
  for n in (1, 2):
    some = run(dataclasses.replace(moe, slots=n), params)
    np.testing.assert_array_equal(some, run(dataclasses.replace(moe, capacity=4 * n / T), params))
  np.testing.assert_array_equal(run(dataclasses.replace(moe, slots=T), params), run(moe, params))


def test_the_balance_loss_is_one_where_load_is_even_and_e_where_one_expert_has_it_all():
  x = jnp.ones((1, E, E)) * jnp.eye(E)[None] * 50
  dims = dataclasses.replace(DIMS, d_model=E, experts=E)
  aux = lambda router, kernel: float(
    router.make(dims)
    .apply({'params': {'score': {'kernel': kernel}}}, x, jnp.ones((1, E), bool))
    .aux
  )
  even, one = jnp.eye(E), jnp.zeros((E, E)).at[:, 0].set(1.0)
  router = TopK(1.0, 0.0, 1, renormalize=False)
  assert aux(router, even) == pytest.approx(1)
  assert aux(router, one) == pytest.approx(E)
  # log^2 (e^50 + 7)
  assert aux(dataclasses.replace(router, balance=0.0, z=0.5), even) == pytest.approx(0.5 * 50**2)


def test_a_wrong_mixture_is_refused_by_field():
  wrong = {
    'router.k: 9 of 8 experts cannot be chosen. Expected at most 8.': Moe(8, TopK(k=9)),
    'experts: 0 experts are none. Expected 1 or more.': Moe(0),
    'expert: moe cannot be stacked to experts. Expected one of glu, mlp, without a norm.': Moe(
      8, expert=Moe()
    ),
    'capacity: is 0.0. Expected more than 0, or none to drop nothing.': Moe(8, capacity=0.0),
    'capacity: is 1.0, and the router fills its experts evenly. Expected none.': Moe(
      8, ExpertChoice(), capacity=1.0
    ),
    'slots: is 0. Expected 1 or more, or none to drop nothing.': Moe(8, slots=0),
    'slots: is 2, and capacity is 1.0: both say how much': Moe(8, slots=2, capacity=1.0),
    'slots: is 2, and the router fills its experts evenly. Expected none.': Moe(
      8, ExpertChoice(), slots=2
    ),
    'router.groups: 3 groups do not divide 8 experts. Expected a divisor of 8.': Moe(
      8, Grouped(groups=3)
    ),
    'router.groups: a group of 1 has no 2 best experts. Expected at most 4 groups.': Moe(
      8, Grouped(groups=8)
    ),
    'router.keep: 1 groups of 2 hold no 3 experts. Expected at least 2.': Moe(
      8, Grouped(k=3, keep=1)
    ),
    'router.keep: 5 of 4 groups cannot be kept. Expected 1 to 4.': Moe(8, Grouped(keep=5)),
    "router.score: unknown score 'softmx'. Did you mean 'softmax'": Moe(8, TopK(score='softmx')),
    "router.group_score: unknown group score 'top3'. Did you mean 'top2'": Moe(
      8, Grouped(group_score='top3')
    ),
    'router: k=1, renormalize: the one weight is always 1': Moe(8, TopK(k=1)),
    'router.k: is 0. Expected 1 or more experts a token.': Moe(8, TopK(k=0)),
    'router.capacity: is -1.0. Expected more than 0': Moe(8, ExpertChoice(capacity=-1.0)),
    'router.z: is -1.0. Expected 0 or more.': Moe(8, TopK(z=-1.0)),
  }
  for sentence, moe in wrong.items():
    with pytest.raises(errors.ConfigError) as e:
      config.validate(moe)
    assert sentence in str(e.value)


def test_a_model_whose_experts_look_around_does_not_generate_and_one_that_looks_ahead_does_not_train_left_to_right():
  model = lambda moe: Model(Tokens(32), D, (Segment((Block(Attention(2), moe),), 1),))
  full, ahead = model(Moe(4, capacity=1.0)), model(Moe(4, ExpertChoice()))
  assert full.causal
  assert not ahead.causal
  assert not list(CausalLM().fits(full))
  assert 'a mask or a router of the model' in next(iter(CausalLM().fits(ahead)))
  for spec in (full, ahead):
    with pytest.raises(
      errors.UserError, match=r'generate: the experts of a token depend on .* with capacity=none'
    ):
      generate(spec, transformer.param_shapes(spec), [[1, 2]], max_new_tokens=2)


@pytest.mark.large
def test_generating_reads_experts_where_they_stand():
  spec = Model(
    Tokens(32),
    D,
    (
      Segment((Block(Attention(2)),), 1),
      Segment((Block(Attention(2), Moe(4, expert=Glu(24))),), 2),
    ),
  )
  params = transformer.init(spec, jax.random.key(0))
  prompts, options = [[1, 2, 3], [4]], {'max_new_tokens': 4, 'temperature': 0}
  by_layer = generate(spec, params, prompts, **options)
  assert by_layer == generate(spec, params, prompts, run=Run(loop='scan'), **options)
