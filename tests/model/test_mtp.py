"""Multi-token prediction: the base model is unchanged, targets are aligned, drafts match."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.model import balance, count, mtp, transformer
from tfm.model import cache as cache_lib
from tfm.model.spec import Block, Model, Segment, Tower
from tfm.parts.cross import CrossAttention
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu, Moe
from tfm.parts.head.lm import Lm
from tfm.parts.mask import Mask
from tfm.parts.mixer import MLA, Attention
from tfm.parts.mtp import ParallelMTP, SequentialMTP
from tfm.parts.relative import RoPE
from tfm.parts.router import Grouped
from tfm.tasks import CausalLM, mean

V, D, T = 61, 32, 10
BLOCK = Block(Attention(4, 2, 8, RoPE()), Glu(48))
BASE = Model(
  Tokens(V, power=0.5),
  D,
  (Segment((BLOCK,), 1), Segment((BLOCK,), 1)),
  heads={'lm': Lm(tied=False)},
)
KINDS = {
  'parallel': dataclasses.replace(BASE, mtp=ParallelMTP(2)),
  'sequential': dataclasses.replace(BASE, mtp=SequentialMTP(2)),
  'latent': dataclasses.replace(
    BASE, segments=(Segment((Block(MLA(4, None, 16, 8, 4, 12), Glu(48)),), 2),), mtp=SequentialMTP()
  ),
}
start = jax.jit(transformer.init, static_argnums=0)
IDS = jnp.asarray(np.random.default_rng(0).integers(0, V, (2, T)), jnp.int32)


@pytest.fixture(scope='module', params=KINDS)
def model(request):
  """Return (spec, large weights, outputs for IDS with mtp)."""
  spec = KINDS[request.param]
  params = start(spec, jax.random.key(0))
  params = jax.tree.map(lambda a: 6 * a if a.ndim > 1 else a, params)
  out = jax.jit(lambda p: transformer.apply(spec, p, input_ids=IDS, mtp=True))(params)
  return spec, params, out


@pytest.mark.large(when=lambda model: model in ('parallel', 'latent'))
def test_base_model_is_unchanged_bit_for_bit(model):
  spec, params, out = model
  base = dataclasses.replace(spec, mtp=None)
  without, with_mtp = start(base, jax.random.key(3)), start(spec, jax.random.key(3))
  assert set(with_mtp) - set(without) == {'mtp'}
  jax.tree.map(np.testing.assert_array_equal, {k: with_mtp[k] for k in without}, without)
  plain = jax.jit(lambda p: transformer.apply(base, p, input_ids=IDS))(
    {k: params[k] for k in without}
  )
  np.testing.assert_array_equal(plain['logits'], out['logits'])
  assert not {'mtp_logits', 'mtp_state'} & set(plain)
  assert 'mtp_logits' not in jax.eval_shape(
    lambda p: transformer.apply(spec, p, input_ids=IDS), params
  )


def test_mtp_parameters_and_flops_are_counted(model):
  spec, params, _ = model
  base = dataclasses.replace(spec, mtp=None)
  more = sum(a.size for a in jax.tree.leaves(params['mtp']))
  assert count.count_params(spec) - count.count_params(base) == more
  assert count.flops_per_token(spec, 16) == count.flops_per_token(base, 16)
  assert count.mtp_flops(base, 16) == 0
  kernels = jax.tree_util.tree_leaves_with_path(params['mtp'])
  weights = sum(a.size for path, a in kernels if path[-1].key == 'kernel') + spec.mtp.depth * V * D
  assert count.mtp_flops(spec, 16) == 2 * weights + spec.mtp.depth * (
    spec.segments[-1].pattern[-1].mixer.flops(D, 8.5)
    - spec.segments[-1].pattern[-1].mixer.flops(D, 0)
  )
  assert sum(r.repeats * r.params for r in count.table(spec)) == count.count_params(spec)


def test_depth_k_depends_on_tokens_up_to_t_plus_k(model):
  spec, params, out = model
  j = 6
  changed = IDS.at[:, j].set((IDS[:, j] + 1) % V)
  other = jax.jit(lambda p: transformer.apply(spec, p, input_ids=changed, mtp=True))(params)
  for k, (a, b) in enumerate(zip(out['mtp_logits'], other['mtp_logits'], strict=True), 1):
    first = j - k if spec.mtp.chained else j
    moved = np.abs(a - b).max((0, 2)) > 0
    assert not moved[:first].any()
    assert moved[first:].all()


def test_parallel_depth_with_trunk_weights_equals_the_trunk():
  spec = dataclasses.replace(BASE, mtp=ParallelMTP(1))
  params = start(spec, jax.random.key(0))
  params['mtp']['depth_1']['segment_0'] = params['segment_1']
  out = jax.jit(lambda p: transformer.apply(spec, p, input_ids=IDS, mtp=True))(params)
  np.testing.assert_allclose(out['mtp_logits'][0], out['logits'], atol=1e-6)


def test_drafts_equal_the_logits_of_training(model):
  """With the true next tokens, drafts after each token equal a pass over whole sequences."""
  spec, params, out = model
  depth, prompt = spec.mtp.depth, 4
  run = jax.jit(
    lambda p, cache, state, nxt, next_BD: mtp.draft(
      spec, p, cache, state, nxt, choose=lambda _, k: next_BD[:, k - 1]
    )
  )
  cache = mtp.init_cache(spec, 2, 16)
  for first, stop in [(0, prompt), *((t, t + 1) for t in range(prompt, T - depth - 1))]:
    next_BD = IDS[:, stop + 1 : stop + 1 + depth]
    found = run(
      params, cache, out['mtp_state'][:, first:stop], IDS[:, first + 1 : stop + 1], next_BD
    )
    expected = np.stack([x[:, stop - 1] for x in out['mtp_logits']], 1)
    np.testing.assert_allclose(found['logits'], expected, atol=2e-5, rtol=1e-4)
    np.testing.assert_array_equal(found['tokens'], next_BD)
    cache = found['cache']
  np.testing.assert_array_equal(cache['slot'], T - depth - 1)


def test_padding_on_either_side_changes_no_draft(model):
  spec, params, out = model
  draft = jax.jit(lambda p, s, n, m: mtp.draft(spec, p, mtp.init_cache(spec, 2, 16), s, n, m))
  plain = draft(params, out['mtp_state'][:, :4], IDS[:, 1:5], None)
  wide = lambda x, n: jnp.pad(x[:, :4], ((0, 0), (n, 3 - n), *[(0, 0)] * (x.ndim - 2)))
  for n in (0, 3):
    mask = wide(jnp.ones((2, 4), jnp.int32), n)
    found = draft(params, wide(out['mtp_state'], n), wide(IDS[:, 1:5], n), mask)
    np.testing.assert_allclose(found['logits'], plain['logits'], atol=1e-5, rtol=1e-4)
    np.testing.assert_array_equal(found['cache']['slot'], [4, 4])


@pytest.mark.large(when=lambda model: model in ('parallel', 'latent'))
def test_mtp_cache_can_be_rewound(model):
  spec, params, out = model
  draft = jax.jit(lambda p, c, s, n: mtp.draft(spec, p, c, s, n))
  prefilled = draft(params, mtp.init_cache(spec, 2, 16), out['mtp_state'][:, :4], IDS[:, 1:5])
  expected = draft(params, prefilled['cache'], out['mtp_state'][:, 4:5], IDS[:, 5:6])
  wrong = draft(params, prefilled['cache'], out['mtp_state'][:, 7:9], IDS[:, 2:4])
  rewound = cache_lib.rewind(wrong['cache'], prefilled['cache']['slot'])
  again = draft(params, rewound, out['mtp_state'][:, 4:5], IDS[:, 5:6])
  np.testing.assert_allclose(again['logits'], expected['logits'], atol=1e-6)


def test_mtp_experts_are_balanced_by_their_load():
  experts = Block(
    Attention(4), Moe(4, Grouped(groups=2, keep=1, k=1, renormalize=False, rate=0.1), Glu(16))
  )
  spec = Model(Tokens(V), D, (Segment((experts,), 1),), mtp=SequentialMTP())
  params = start(spec, jax.random.key(0))
  load = jax.jit(lambda p: transformer.apply(spec, p, input_ids=IDS, mtp=True)['load'])(params)
  moved = balance.update_params(spec, params, load)
  bias = lambda p: p['mtp']['depth_1']['segment_0']['block_0']['ffn']['router']['bias']
  assert np.abs(bias(moved) - bias(params)).max() > 0.09
  assert jax.tree.structure(moved) == jax.tree.structure(params)


def with_logits(ids, depth):
  """Return logits that predict the right token at every place and depth."""
  certain = lambda k: 50 * jax.nn.one_hot(jnp.roll(ids, -k - 1, 1), V)
  return {'logits': certain(0), 'mtp_logits': tuple(certain(k) for k in range(1, depth + 1))}


def test_depth_k_targets_are_k_plus_1_places_later():
  """With tokens 0 to 10, the target of depth k at t is t + k + 1, up to label 10."""
  row = jnp.arange(11)[None]
  batch = {'labels': row[:, 1:], 'weights': jnp.ones((1, T))}
  out = with_logits(row, 2)
  right = {name: jax.tree.map(lambda x: x[:, :T], x) for name, x in out.items()}
  task = CausalLM(mtp=0.5)
  key = jax.random.key(0)
  ratios = task.loss(lambda **inputs: right, batch, key)
  loss = ratios['loss'].sum
  assert ratios['loss'].weight == T
  assert loss == pytest.approx(0, abs=1e-5)
  # A wrong prediction costs 50 nats times mtp / depths, and nothing where there is no target.
  for k, last in ((1, T - 2), (2, T - 3)):
    for t, cost in ((0, 12.5), (last, 12.5), (last + 1, 0.0)):
      wrong = list(right['mtp_logits'])
      wrong[k - 1] = wrong[k - 1].at[:, t].set(50 * jax.nn.one_hot(jnp.asarray([60]), V))
      out = right | {'mtp_logits': tuple(wrong)}
      found = task.loss(lambda out=out, **inputs: out, batch, key)
      assert found['loss'].sum == pytest.approx(cost, abs=1e-4), (k, t)
      assert found | {'loss': None} == ratios | {'loss': None}


def test_targets_stay_within_documents():
  """In documents of 4 and 6 tokens, the last target of depth k is k + 1 before the end."""
  weights = jnp.asarray([[1, 1, 1, 0, 1, 1, 1, 1, 1, 0]], jnp.float32)
  batch = {'labels': jnp.zeros((1, T), jnp.int32), 'weights': weights}
  counted = []
  for k in (0, 1):
    ahead = [jnp.zeros((1, T, V)).at[:, :, 0].set(100.0)] * 2
    costs = jax.grad(
      lambda x, k=k, ahead=ahead: (
        CausalLM(mtp=2.0)
        .loss(
          lambda **inputs: {'logits': ahead[0], 'mtp_logits': (*ahead[:k], x, *ahead[k + 1 :])},
          batch,
          jax.random.key(0),
        )['loss']
        .sum
      )
    )
    counted.append((np.abs(costs(jnp.zeros((1, T, V)))).max(-1)[0] > 0).astype(int).tolist())
  assert counted == [[1, 1, 0, 0, 1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 1, 1, 1, 0, 0, 0]]


@pytest.mark.large(when=lambda model: model in ('latent',))
def test_packed_documents_match_separate_ones(model):
  """The last k places of a document are excluded at depth k, where no target exists."""
  spec, params, _ = model
  segments = jnp.asarray([[1] * 4 + [2] * 6] * 2)
  apply = jax.jit(
    lambda p, ids, seg: transformer.apply(spec, p, input_ids=ids, segment_ids=seg, mtp=True)[
      'mtp_logits'
    ]
  )
  packed = apply(params, IDS, segments)
  alone = apply(params, IDS[:, 4:], segments[:, 4:]), apply(params, IDS[:, :4], segments[:, :4])
  for k, both in enumerate(packed, 1):
    np.testing.assert_allclose(
      both[:, 4 : T - k], alone[0][k - 1][:, : 6 - k], atol=2e-5, rtol=1e-4
    )
    np.testing.assert_allclose(both[:, : 4 - k], alone[1][k - 1][:, : 4 - k], atol=2e-5, rtol=1e-4)


@pytest.mark.large(when=lambda model: model in ('parallel', 'latent'))
def test_training_lowers_the_loss_of_every_depth(model):
  spec = model[0]
  task = CausalLM(mtp=float(spec.mtp.depth))
  batch = {'labels': jnp.roll(IDS, -1, 1), 'weights': jnp.ones((2, T)).at[:, -1].set(0)}
  key = jax.random.key(0)

  def loss(p):
    out = transformer.apply(spec, p, input_ids=IDS, mtp=True)
    per_depth = []
    for k, x in enumerate(out['mtp_logits'], 1):
      shifted = {name: b[:, k:] for name, b in batch.items()}
      predict = lambda x=x, k=k, **_: {'logits': x[:, :-k]}
      per_depth.append(mean(*task.loss(predict, shifted, key)['loss']))
    return mean(*task.loss(lambda **inputs: out, batch, key)['loss']), jnp.stack(per_depth)

  @jax.jit
  def step(p):
    (_, each), g = jax.value_and_grad(loss, has_aux=True)(p)
    return jax.tree.map(lambda a, g: a - 0.3 * g, p, g), each

  params = start(spec, jax.random.key(0))
  first = np.asarray(step(params)[1])
  for _ in range(8):
    params, each = step(params)
  assert (np.asarray(each) < first - 0.05).all()


def test_encoder_decoder_supports_mtp_but_no_drafts():
  decoder = Block(Attention(4), Glu(48), cross=CrossAttention(4))
  encoder = Tower(segments=(Segment((Block(Attention(4, mask=Mask()), Glu(48)),), 1),))
  spec = config.validate(
    Model(Tokens(V), D, (Segment((decoder,), 1),), mtp=SequentialMTP(), towers={'encoder': encoder})
  )
  params = start(spec, jax.random.key(0))
  out = jax.jit(
    lambda p: transformer.apply(spec, p, input_ids=IDS, decoder_input_ids=IDS, mtp=True)
  )(params)
  assert out['mtp_logits'][0].shape == (2, T, V)
  with pytest.raises(
    errors.UserError,
    match=r'mtp: multi-token drafts do not support an encoder. Expected a decoder-only model',
  ):
    mtp.init_cache(spec, 2, 16)


def test_draft_without_mtp_is_an_error():
  with pytest.raises(
    errors.UserError,
    match=r'mtp: the model predicts the next token only. Expected mtp=sequential or parallel',
  ):
    mtp.init_cache(BASE, 2, 16)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'mtp': SequentialMTP(0)},
      'mtp: depth=0 is too small. Expected at least 1, or mtp=none',
    ),
    (
      {'mtp': ParallelMTP(), 'segments': (Segment((BLOCK,), 2),)},
      'mtp shares the input of the last segment, but the model has one segment',
    ),
    (
      {'mtp': SequentialMTP(), 'segments': (Segment((Block(Attention(4, mask=Mask())),), 1),)},
      'mtp predicts later tokens, which a mask or router makes visible. Expected mask=causal',
    ),
  ],
)
def test_invalid_mtp_is_an_error(fields, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(dataclasses.replace(BASE, **fields))


def test_negative_mtp_weight_is_an_error():
  assert list(CausalLM(mtp=-1.0).check()) == ['mtp: is -1.0. Expected 0 or more.']
