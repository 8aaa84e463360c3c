"""Mixtures of experts: identities, routers, capacity, losses and errors."""

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
from tfm.parts.ffn.moe import limit_capacity
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
  """Return the parameters of a part, with random biases."""
  from flax import linen as nn

  params = nn.unbox(part.make(DIMS).init(jax.random.key(seed), X, ctx())['params'])
  rng = np.random.default_rng(1)
  noisy = lambda path, p: (
    p + rng.normal(size=p.shape).astype('f4') * 0.1 if path[-1].key == 'bias' else p
  )
  return jax.tree_util.tree_map_with_path(noisy, params)


def run(part, params, x=X, context=None):
  return jax.jit(lambda p, x: part.make(DIMS).apply({'params': p}, x, context or ctx())[0])(
    params, x
  )


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
def test_one_expert_equals_the_feed_forward_network(name):
  ffn = FFNS[name]
  moe, params = Moe(1, TopK(k=1, renormalize=False), ffn), start(ffn)
  mixture = start(moe) | {'expert': stacked(params, 1)}
  np.testing.assert_allclose(run(moe, mixture), run(ffn, params), atol=1e-5)


@pytest.mark.parametrize('router', [TopK(k=3), Grouped()])
@pytest.mark.parametrize('name', FFNS)
def test_equal_experts_equal_one_feed_forward_network(name, router):
  ffn = FFNS[name]
  moe, params = Moe(E, router, ffn), start(ffn)
  np.testing.assert_allclose(
    run(moe, start(moe) | {'expert': stacked(params)}), run(ffn, params), atol=1e-5
  )


def all_experts(moe, params, x, route):
  """Return sum_e g_e FFN_e(x), with every expert applied to every token."""
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
def test_outputs_and_gradients_equal_dense_evaluation(ffn, router):
  moe = Moe(E, ROUTERS[router], FFNS[ffn])
  params, weights = start(moe), jnp.asarray(RNG.normal(size=X.shape), jnp.float32)

  def dense(params, x):
    dims = DIMS.replace(experts=E)
    route = moe.router.make(dims).apply({'params': params['router']}, x, jnp.ones((B, T), bool))
    return all_experts(moe, params, x, route)

  sparse = lambda params, x: moe.make(DIMS).apply({'params': params}, x, ctx())[0]
  for f, g in ((sparse, dense),):
    np.testing.assert_allclose(jax.jit(f)(params, X), jax.jit(g)(params, X), atol=1e-5)
    grads = [
      jax.jit(jax.grad(lambda p, x, h=h: jnp.sum(weights * h(p, x)), (0, 1)))(params, X)
      for h in (f, g)
    ]
    for a, b in zip(*map(jax.tree.leaves, grads), strict=True):
      np.testing.assert_allclose(a, b, atol=2e-5)


def test_shared_expert_is_added_for_every_token():
  moe = Moe(E, TopK(), Glu(24), Mlp(12))
  params = start(moe)
  routed_alone = run(
    dataclasses.replace(moe, shared=None), {k: v for k, v in params.items() if k != 'shared'}
  )
  np.testing.assert_allclose(
    run(moe, params), routed_alone + run(Mlp(12), params['shared']), atol=1e-5
  )


def test_mixtral_weights_are_a_softmax_of_the_top_two():
  router = TopK(k=2)
  module = router.make(DIMS.replace(experts=E))
  params = module.init(jax.random.key(0), X, jnp.ones((B, T), bool))
  logits = np.asarray(X @ params['params']['score']['kernel'].value)
  top = np.sort(logits, -1)[..., ::-1][..., :2]
  route = routed(router, params=params['params'])
  np.testing.assert_array_equal(route.expert_BTC, np.argsort(-logits, -1)[..., :2])
  np.testing.assert_allclose(route.weight_BTC, jax.nn.softmax(top), atol=1e-6)


def test_experts_are_chosen_from_the_best_groups():
  router = Grouped(k=2, groups=4, keep=1)
  route = routed(router)
  assert (np.asarray(route.expert_BTC) // 2 == np.asarray(route.expert_BTC[..., :1]) // 2).all()


def test_bias_changes_the_choice_but_not_the_weights():
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


def test_expert_choice_ignores_padding():
  real = jnp.arange(T)[None] < jnp.asarray([[T], [4]])
  taken = np.asarray(routed(ExpertChoice(capacity=2.0), real=real).expert_BTC) < E
  # ceil(10 * 2 / 8) = 3 tokens of the first sequence, ceil(4 * 2 / 8) = 1 of the second.
  assert (taken.sum(1) == [[3] * E, [1] * E]).all()
  assert not taken[1, 4:].any()


def test_padding_is_not_routed_and_not_counted():
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


def test_choices_beyond_the_capacity_are_dropped():
  choices = jnp.asarray([[[0, 1], [0, 2], [3, 0], [0, 1]], [[0, 1], [1, 3], [1, 2], [2, 0]]])
  route = limit_capacity(Route(choices, jnp.ones((2, 4, 2)), jnp.zeros(()), 8), 4, 2)
  # The number 4 is no expert.
  expected = [[[0, 1], [0, 2], [3, 4], [4, 1]], [[0, 1], [1, 3], [4, 2], [2, 0]]]
  np.testing.assert_array_equal(route.expert_BTC, expected)


def test_a_large_capacity_drops_nothing():
  moe = Moe(E, TopK(), Glu(24))
  params = start(moe)
  np.testing.assert_array_equal(
    run(dataclasses.replace(moe, capacity=float(E)), params), run(moe, params)
  )
  assert not np.allclose(run(dataclasses.replace(moe, capacity=0.3), params), run(moe, params))


def test_slots_are_a_capacity_independent_of_length():
  moe = Moe(4, TopK(k=1, renormalize=False), Glu(24))
  params = start(moe)
  for n in (1, 2):
    some = run(dataclasses.replace(moe, slots=n), params)
    np.testing.assert_array_equal(some, run(dataclasses.replace(moe, capacity=4 * n / T), params))
  np.testing.assert_array_equal(run(dataclasses.replace(moe, slots=T), params), run(moe, params))


def test_balance_loss_of_even_and_of_collapsed_routing():
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


def test_inconsistent_mixtures_are_errors():
  wrong = {
    'router: k=9 is more than the 8 experts. Expected at most 8.': Moe(8, TopK(k=9)),
    'experts=0 is too small. Expected at least 1.': Moe(0),
    'expert=moe cannot be used as an expert. Expected any of glu, mlp, without a norm.': Moe(
      8, expert=Moe()
    ),
    'capacity=0.0 is too small. Expected more than 0, or none to drop nothing.': Moe(
      8, capacity=0.0
    ),
    'capacity=1.0 limits the choices of an expert, and router=expert_choice already does.': Moe(
      8, ExpertChoice(), capacity=1.0
    ),
    'slots=0 is too small. Expected at least 1, or none to drop nothing.': Moe(8, slots=0),
    'slots=2 and capacity=1.0 both limit the choices of an expert.': Moe(8, slots=2, capacity=1.0),
    'slots=2 limits the choices of an expert, and router=expert_choice already does.': Moe(
      8, ExpertChoice(), slots=2
    ),
    'router: groups=3 does not divide 8 experts. Expected a divisor of 8.': Moe(
      8, Grouped(groups=3)
    ),
    'router: groups=8 makes groups of 1 experts, and group_score=top2 needs 2. Expected at': Moe(
      8, Grouped(groups=8)
    ),
    'router: keep=1 groups of 2 experts are fewer than k=3 experts. Expected at least 2': Moe(
      8, Grouped(k=3, keep=1)
    ),
    'router: keep=5 is not from 1 to groups=4. Expected 1 to 4.': Moe(8, Grouped(keep=5)),
    "router.score: unknown score 'softmx'. Did you mean 'softmax'": Moe(8, TopK(score='softmx')),
    "router.group_score: unknown group score 'top3'. Did you mean 'top2'": Moe(
      8, Grouped(group_score='top3')
    ),
    'router: k=1 with renormalize=true makes every weight 1': Moe(8, TopK(k=1)),
    'router: k=0 is too small. Expected at least 1 expert per token.': Moe(8, TopK(k=0)),
    'router: capacity=-1.0 is too small. Expected more than 0': Moe(8, ExpertChoice(capacity=-1.0)),
    'router: z=-1.0 is negative. Expected at least 0.': Moe(8, TopK(z=-1.0)),
  }
  for sentence, moe in wrong.items():
    with pytest.raises(errors.ConfigError) as e:
      config.validate(moe)
    assert sentence in str(e.value)


def test_routing_across_tokens_forbids_generation():
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
def test_unrolled_and_scanned_generation_are_equal():
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
