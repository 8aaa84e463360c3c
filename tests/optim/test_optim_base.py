import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tfm.core.errors import ConfigError, UserError
from tfm.core.registry import Part
from tfm.optim import SGD, TABLE, Adafactor, AdamW, Lion, Muon, Optim
from tfm.optim.layout import is_hidden_matrix, layout
from tfm.optim.schedule import Constant, Cosine

LETTERS = {
  'embed': 'VD',
  'segment_0': {'block_0': {'q': {'w': 'LDNH', 'b': 'LNH'}, 'norm': 'LD'}},
  'bias': 'UN',
}


def one_step(spec, grads, params, letters):
  tx = spec.make(10, letters)
  return jax.jit(tx.update)(grads, tx.init(params), params)[0]


def test_matrices_and_tables_decay_but_vectors_do_not():
  assert AdamW().decayed(LETTERS) == {
    'embed': True,
    'segment_0': {'block_0': {'q': {'w': True, 'b': False}, 'norm': False}},
    'bias': True,
  }


def test_no_decay_exempts_by_path():
  decayed = AdamW(no_decay=('embed', 'segment_*/q/w')).decayed(LETTERS)
  assert not decayed['embed']
  assert not decayed['segment_0']['block_0']['q']['w']
  assert decayed['bias']


def test_pattern_without_a_match_is_an_error_with_near_paths():
  with pytest.raises(
    UserError, match=r"^optim.no_decay: 'embd' matches no parameter. Expected .* such as 'embed', "
  ):
    AdamW(no_decay=('embd',)).make(10, LETTERS)
  with pytest.raises(UserError, match=r"^optim.adam: '\*/router' matches no parameter. "):
    Muon(adam=('*/router',)).make(10, LETTERS)


@pytest.mark.parametrize(
  ('letters', 'stack', 'groups'),
  [
    ('LDNH', 'L', ('D', 'NH')),
    ('LDKH', 'L', ('D', 'KH')),
    ('LNHD', 'L', ('NH', 'D')),
    ('LNH', 'L', ('NH',)),
    ('LEDF', 'LE', ('D', 'F')),
    ('LDE', 'L', ('D', 'E')),
    ('LRNH', 'L', ('R', 'NH')),
    ('VD', '', ('V', 'D')),
    ('UN', '', ('U', 'N')),
    ('D', '', ('D',)),
    ('LE', 'L', ('E',)),
    ('', '', ()),
  ],
)
def test_layout_merges_heads_and_stacks_layers_and_experts(letters, stack, groups):
  assert layout(letters) == (stack, groups)


def test_tables_and_vectors_are_not_hidden_matrices():
  names = (
    'LDNH',
    'LNHD',
    'DF',
    'LEFD',
    'LDE',
    'VD',
    'DV',
    'PD',
    'YD',
    'UN',
    'LNH',
    'LD',
    'LED',
    'D',
    'LEF',
  )
  assert [x for x in names if is_hidden_matrix(x)] == ['LDNH', 'LNHD', 'DF', 'LEFD', 'LDE']


def test_clipping_scales_the_gradient_to_the_maximum_norm():
  spec = SGD(lr=1.0, schedule=Constant(), momentum=None, clip=2.0)
  grads = {'a': jnp.full([4], 3.0), 'b': jnp.full([4], 4.0)}  # norm 10
  letters = {'a': 'D', 'b': 'D'}
  updates = one_step(spec, grads, grads, letters)
  np.testing.assert_allclose(optax.tree.norm(updates), 2.0, rtol=1e-6)
  np.testing.assert_allclose(updates['a'], -grads['a'] / 5, rtol=1e-6)
  small = jax.tree.map(lambda g: g / 10, grads)
  np.testing.assert_allclose(one_step(spec, small, grads, letters)['b'], -small['b'], rtol=1e-6)
  zero = jax.tree.map(jnp.zeros_like, grads)
  np.testing.assert_array_equal(one_step(spec, zero, grads, letters)['b'], 0)


def test_clipping_does_not_hide_nan_gradients():
  grads = {'a': jnp.array([1.0, jnp.nan])}
  assert np.isnan(one_step(SGD(clip=1.0), grads, grads, {'a': 'D'})['a']).all()


def test_update_uses_the_rate_of_its_step():
  spec = SGD(lr=0.5, schedule=Cosine(warmup=3), momentum=None, clip=None)
  rate, tx = spec.schedule_fn(20), spec.make(20, {'w': 'D'})
  params = {'w': jnp.ones([1])}
  state = tx.init(params)
  for i in range(6):
    updates, state = tx.update(params, state, params)
    np.testing.assert_allclose(-updates['w'][0], rate(i), rtol=1e-6)


def test_adamw_matches_its_paper():
  p, m, v, w = 2.0, 0.0, 0.0, {'w': jnp.full([1, 1], 2.0)}
  spec = AdamW(lr=0.1, schedule=Constant(), clip=None, decay=0.3, b1=0.8, b2=0.9, eps=1e-3)
  tx = spec.make(5, {'w': 'DF'})
  state = tx.init(w)
  for t, g in enumerate((0.5, -1.0, 0.25), 1):
    m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
    p -= 0.1 * (m / (1 - 0.8**t) / ((v / (1 - 0.9**t)) ** 0.5 + 1e-3) + 0.3 * p)
    updates, state = tx.update({'w': jnp.full([1, 1], g)}, state, w)
    w = optax.apply_updates(w, updates)
    np.testing.assert_allclose(w['w'], [[p]], rtol=1e-5)


def test_lion_updates_by_the_sign():
  grads = {'w': jnp.array([3.0, -1e-4, 0.0])}
  updates = one_step(Lion(lr=0.25, schedule=Constant()), grads, grads, {'w': 'D'})
  np.testing.assert_array_equal(updates['w'], [-0.25, 0.25, 0.0])


def test_nesterov_looks_one_step_ahead():
  grads = {'w': jnp.ones([2])}
  step = lambda nesterov: one_step(
    SGD(lr=1.0, schedule=Constant(), clip=None, nesterov=nesterov), grads, grads, {'w': 'D'}
  )
  np.testing.assert_allclose(step(False)['w'], -1.0)
  np.testing.assert_allclose(step(True)['w'], -1.9, rtol=1e-6)


@pytest.mark.parametrize('spec', [AdamW(m_dtype='bfloat16'), Lion(m_dtype='bfloat16')])
def test_first_moment_can_be_kept_in_16_bits(spec):
  params = {'w': jnp.ones([2])}
  tx = spec.make(5, {'w': 'D'})
  _, state = tx.update(params, tx.init(params), params)
  assert state['rule'].mu['w'].dtype == jnp.bfloat16


def test_optimizers_are_found_by_name_and_suggested():
  assert isinstance(Optim.from_text('muon'), Muon)
  assert issubclass(Optim, Part)
  with pytest.raises(ConfigError, match=r"unknown optimizer 'adamv'\. Did you mean 'adamw'"):
    TABLE['adamv']


@pytest.mark.parametrize(
  ('spec', 'sentence'),
  [
    (AdamW(lr=0.0), 'lr: is 0.0. Expected more than 0.'),
    (AdamW(clip=0.0), 'clip: is 0.0. Expected more than 0, or none.'),
    (AdamW(decay=-1.0), 'decay: is -1.0. Expected 0 or more.'),
    (AdamW(ema=1.0), 'ema: is 1.0. Expected a decay from 0 to below 1.'),
    (AdamW(accumulate=0), 'accumulate: is 0. Expected 1 or more.'),
    (AdamW(b2=1.0), 'b2: is 1.0. Expected a decay from 0 to below 1.'),
    (AdamW(eps=0.0), 'eps: is 0.0. Expected more than 0.'),
    (AdamW(m_dtype='bfloat'), "m_dtype: unknown dtype 'bfloat'. Did you mean 'bfloat16'"),
    (SGD(momentum=None, nesterov=True), 'nesterov: is true, but momentum is none.'),
    (Muon(iterations=0), 'iterations: is 0. Expected more than 0.'),
    (Muon(rms=-1.0), 'rms: is -1.0. Expected more than 0, or none.'),
    (Adafactor(threshold=0.0), 'threshold: is 0.0. Expected more than 0, or none.'),
    (Adafactor(power=0.0), 'power: is 0.0. Expected more than 0.'),
  ],
)
def test_invalid_optimizer_is_an_error(spec, sentence):
  assert [s for s in spec.check() if s.startswith(sentence)]
