"""Permutation language modelling: which tokens outputs depend on, and unsupported inputs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import zoo
from tfm.core import config, errors
from tfm.model import transformer
from tfm.model.cache import init_cache
from tfm.model.spec import Block, Model, Segment
from tfm.parts.attend import Blockwise
from tfm.parts.context import Run
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu, Moe
from tfm.parts.head.classify import Classify
from tfm.parts.mask import Causal, Mask, Window
from tfm.parts.mixer import MLA, Attention
from tfm.parts.mtp import SequentialMTP
from tfm.parts.relative import XL, RoPE

T = 8


def with_query(*mixers, **fields):
  blocks = tuple(Block(mixer, Glu(48)) for mixer in mixers)
  return Model(
    **{'embed': Tokens(64, query=True), 'd_model': 32, 'segments': (Segment(blocks),), **fields}
  )


FULL = with_query(Attention(4, 2, 8, RoPE(), Mask()), Attention(4, 2, 8, XL(), Mask()))
SPECS = {
  'rope and xl': FULL,
  'latent': with_query(MLA(4, None, 16, 8, 4, 12, mask=Mask())),
  'window': with_query(Attention(4, 2, 8, RoPE(), Window(3, ahead=True))),
  'types': zoo.tiny(zoo.get('xlnet-base')),
}
_rng = np.random.default_rng(0)
IDS, ORDER, PLACES = _rng.integers(0, 64, (1, T)), _rng.permutation(T)[None], np.arange(T)[None]


def outputs(spec, params, ids, order, places, run=Run(), **inputs):
  permuted = {'order_ids': order, 'target_positions': places}
  inputs = {
    n: jnp.asarray(x, jnp.int32) for n, x in {'input_ids': ids, **permuted, **inputs}.items()
  }
  run_model = jax.jit(
    lambda p, x: transformer.apply(spec, p, run=run, output_hidden_states=True, **x)
  )
  out = run_model(params, inputs)
  return np.asarray(out['logits']), np.asarray(out['hidden_states'][-1])


def random_params(spec):
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda s: rng.standard_normal(s.shape).astype(np.float32) * 0.3, transformer.param_shapes(spec)
  )


@pytest.fixture(scope='module', params=SPECS)
def model(request):
  return SPECS[request.param], random_params(SPECS[request.param])


def test_targets_depend_on_earlier_tokens_of_the_order(model):
  spec, params = model
  changed = np.tile(IDS, (T + 1, 1))
  changed[np.arange(T), np.arange(T)] = (changed[np.arange(T), np.arange(T)] + 7) % 64
  whole = lambda x: np.tile(x, (T + 1, 1))
  run = Run(attend=Blockwise(8, 8))
  logits, states = outputs(spec, params, changed, whole(ORDER), whole(PLACES), run)
  moved = lambda x: (np.abs(x[:T] - x[T]).max(-1) > 1e-6).T  # [attending token, changed token]
  before = ORDER[0][None] < ORDER[0][:, None]
  near = np.abs(PLACES[0][None] - PLACES[0][:, None]) < 3 if spec is SPECS['window'] else True
  np.testing.assert_array_equal(moved(logits), before & near)
  np.testing.assert_array_equal(moved(states[:, :T]), (before & near) | np.eye(T, dtype=bool))


def test_targets_do_not_depend_on_packing_or_padding(model):
  spec, params = model
  types = {'token_type_ids': IDS % 2} if spec is SPECS['types'] else {}
  alone, _ = outputs(spec, params, IDS, ORDER, PLACES, **types)
  some, _ = outputs(spec, params, IDS, ORDER, np.asarray([[5, -1, 2, -1]]), **types)
  np.testing.assert_allclose(some[0, [0, 2]], alone[0, [5, 2]], atol=1e-5)
  assert np.isfinite(some).all()
  packed_with = lambda x: np.concatenate([x, x[:, :3], 0 * x[:, :2]], 1)
  segments = np.asarray([[1] * T + [2] * 3 + [0] * 2])
  packed, _ = outputs(
    spec,
    params,
    packed_with(IDS),
    packed_with(ORDER),
    PLACES,
    segment_ids=segments,
    **{n: packed_with(x) for n, x in types.items()},
  )
  np.testing.assert_allclose(packed, alone, atol=1e-5)


def test_order_of_positions_equals_a_causal_mask():
  blocks = [
    dataclasses.replace(b, mixer=dataclasses.replace(b.mixer, mask=Causal()))
    for b in FULL.segments[0].pattern
  ]
  causal = dataclasses.replace(FULL, segments=(Segment(tuple(blocks)),))

  @jax.jit
  def both(params):
    run = lambda spec, **x: transformer.apply(spec, params, input_ids=jnp.asarray(IDS), **x)[
      'logits'
    ]
    return run(FULL, order_ids=jnp.asarray(PLACES)), run(causal)

  np.testing.assert_allclose(*both(random_params(FULL)), atol=1e-5)


_ONE = jnp.zeros((1, T), jnp.int32)


@pytest.mark.parametrize(
  ('spec', 'inputs', 'message'),
  [
    (FULL, {'target_positions': _ONE}, 'a target would attend to itself without order_ids'),
    (
      FULL,
      {'order_ids': _ONE[:, :3]},
      r'order_ids has shape \(1, 3\)\. Expected \(1, 8\), as input_ids',
    ),
    (
      FULL,
      {'order_ids': _ONE, 'target_positions': _ONE[0]},
      r'target_positions has shape \(8,\)\. Expected',
    ),
    (
      with_query(Attention(4), embed=Tokens(64)),
      {'order_ids': _ONE, 'target_positions': _ONE},
      'Expected embed.query=true',
    ),
    (
      zoo.tiny(zoo.get('fnet-base')),
      {'order_ids': _ONE},
      'tokens of the model depend on others in ways that no mask limits',
    ),
    (
      with_query(Attention(4), mtp=SequentialMTP()),
      {'order_ids': _ONE, 'target_positions': _ONE},
      'Expected mtp=none and',
    ),
    (
      with_query(Attention(4)).with_heads(classify=Classify()),
      {'order_ids': _ONE, 'target_positions': _ONE},
      'nor a classifier supports targets',
    ),
  ],
)
def test_unsupported_orders_and_targets_are_errors(spec, inputs, message):
  with pytest.raises(errors.UserError, match=message):
    jax.eval_shape(
      lambda p: transformer.apply(spec, p, input_ids=_ONE, **inputs), transformer.param_shapes(spec)
    )


@pytest.mark.parametrize(
  ('name', 'message'),
  [('order_ids', 'stores no order'), ('token_type_ids', 'token types, which a cache does not')],
)
def test_inputs_that_a_cache_does_not_store_are_errors(name, message):
  spec = SPECS['types']
  params = transformer.init(spec, jax.random.key(0))
  with pytest.raises(errors.UserError, match=message):
    transformer.apply(spec, params, cache=init_cache(spec, 1, T), input_ids=_ONE, **{name: _ONE})


def test_masked_requires_that_only_masks_mix_tokens():
  assert FULL.masked
  assert not zoo.get('t5-small').masked
  block = Block(Attention(4), Moe(4, capacity=0.5))
  assert not Model(Tokens(64), 32, (Segment((block,)),)).masked


def test_decoder_with_an_encoder_has_no_token_types():
  spec = config.override(
    zoo.tiny(zoo.get('t5-small')), 'segments.0.pattern.0.mixer.relative', 'xl(types=true)'
  )
  with pytest.raises(
    errors.ConfigError, match='layers of the decoder use token types, which only an encoder has'
  ):
    config.validate(spec)
