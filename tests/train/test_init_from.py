"""Training from loaded parameters: all of them, some of them, or adapters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train import tiny
from tfm import hub
from tfm.cli.train import warm_start
from tfm.core import errors
from tfm.model.adapters import merge_adapters
from tfm.model.transformer import apply, init
from tfm.parts.adapter import LoRA
from tfm.train import loop


def _experiment(tmp_path, **changes):
  return tiny.experiment(tmp_path, **{'model..relative': 'rope', **changes})


@pytest.fixture
def base(tmp_path):
  """A published folder, its model and its parameters."""
  spec = _experiment(tmp_path).model
  params = init(spec, jax.random.key(7))
  hub.export_hf(spec, params, tmp_path / 'base')
  return tmp_path / 'base', spec, params


def _trained(tmp_path, base, name='run', **changes):
  x = _experiment(tmp_path, init_from=base, optim__schedule='constant', **changes)
  return loop.train(x, tmp_path / name, warm_start=warm_start).state


def _named(tree):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(x) for path, x in leaves
  }


def test_training_starts_from_the_loaded_parameters(tmp_path, base, capsys):
  folder, _, params = base
  x = _experiment(tmp_path, init_from=folder, steps=1, optim__lr=1e-12)
  state = loop.train(x, tmp_path / 'run', warm_start=warm_start).state
  for name, value in _named(params).items():
    np.testing.assert_allclose(
      _named(state['params'])[name], value, atol=1e-10, rtol=0, err_msg=name
    )
  assert f'{len(_named(params))} parameters of the model kept' in capsys.readouterr().out


def test_own_checkpoint_takes_precedence_over_init_from(tmp_path, base):
  folder, *_ = base
  whole = _trained(tmp_path, folder, 'whole')
  _trained(tmp_path, folder, 'parts', steps=4)
  again = _trained(tmp_path, folder, 'parts')
  jax.tree.map(np.testing.assert_array_equal, whole['params'], again['params'])


def test_only_selected_parameters_have_optimizer_state(tmp_path, base):
  folder, _, params = base
  state = _trained(tmp_path, folder, optim__only='*norm*')
  before, after = _named(params), _named(state['params'])
  moved = {name for name in before if not np.array_equal(before[name], after[name])}
  assert moved == {name for name in before if 'norm' in name}
  moments = {n.partition('mu/')[2] for n in _named(state['opt']) if 'mu/' in n}
  assert moments == moved


def test_frozen_parameters_do_not_change_other_gradients(tmp_path, base):
  folder, *_ = base
  some = _trained(tmp_path, folder, 'some', steps=1, optim__only='norm/*', optim__clip='none')
  every = _trained(tmp_path, folder, 'all', steps=1, optim__clip='none')
  np.testing.assert_allclose(
    some['params']['norm']['scale'], every['params']['norm']['scale'], atol=1e-7
  )


def test_glob_that_matches_nothing_is_named(tmp_path, base):
  with pytest.raises(errors.UserError, match=r"optim\.only: '\*nrom\*' matches no parameter"):
    _trained(tmp_path, base[0], optim__only='*nrom*')


def test_swapped_part_reports_kept_dropped_and_new_parameters(tmp_path, base, capsys):
  folder, *_ = base
  state = _trained(tmp_path, folder, steps=1, **{'model.norm': 'layer', 'model..ffn.d_ff': 24})
  output = capsys.readouterr().out
  assert '1 new: norm/bias' in output
  assert (
    'of another shape, so new: segment_0/block_0/ffn/down/kernel (2, 32, 16) -> (2, 24, 16)'
    in output
  )
  assert state['params']['segment_0']['block_0']['ffn']['down']['kernel'].shape == (2, 24, 16)


def test_model_without_matching_parameters_is_an_error(tmp_path, base):
  with pytest.raises(errors.UserError, match='init_from: none of the'):
    _trained(
      tmp_path,
      base[0],
      **{'model.d_model': 24, 'model..heads': 6, 'model..kv_heads': 3, 'model..d_ff': 20},
    )


def test_missing_init_from_folder_is_an_error(tmp_path):
  with pytest.raises(errors.UserError, match='holds no checkpoint'):
    _trained(tmp_path, tmp_path / 'nowhere')


def test_lora_starts_as_the_base_and_trains_alone(tmp_path, base):
  folder, _, params = base
  state = _trained(
    tmp_path,
    folder,
    **{'model.adapter': 'lora', 'model.adapter.rank': 2, 'optim__only': '*/lora/*'},
  )
  before, after = _named(params), _named(state['params'])
  assert {n.rpartition('/')[2] for n in set(after) - set(before)} == {'a', 'b'}
  for name in before:
    np.testing.assert_array_equal(before[name], after[name], err_msg=name)
  assert np.abs(after['segment_0/block_0/mixer/q/lora/b']).max() > 0


@pytest.mark.parametrize(
  'adapter', [LoRA(2), LoRA(3, stable=True, targets=('q', 'k', 'v', 'o', 'gate', 'up', 'down'))]
)
@pytest.mark.large(when=lambda adapter: adapter != LoRA(2))
def test_merged_adapters_compute_the_same(tmp_path, base, adapter):
  _, spec, params = base
  spec = dataclasses.replace(spec, adapter=adapter)
  own = _named(init(spec, jax.random.key(1)))
  drawn = jax.tree_util.tree_map_with_path(
    lambda p, x: x + 0.1 * jax.random.normal(jax.random.key(3), x.shape),
    init(spec, jax.random.key(1)),
  )
  ids = jnp.arange(12).reshape(2, 6)
  merged_spec, merged = merge_adapters(spec, drawn)
  a, b = (
    apply(spec, drawn, input_ids=ids)['logits'],
    apply(merged_spec, merged, input_ids=ids)['logits'],
  )
  np.testing.assert_allclose(a, b, atol=2e-5)
  assert len(_named(merged)) == len(_named(params)) < len(own)
  hub.export_hf(spec, drawn, tmp_path / 'merged')
  again = hub.load(tmp_path / 'merged')
  np.testing.assert_allclose(apply(again.spec, again.params, input_ids=ids)['logits'], a, atol=2e-5)
