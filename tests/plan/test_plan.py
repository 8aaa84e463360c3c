import json
import math

import jax
import pytest

from tests.plan.small import experiment
from tfm.core import errors
from tfm.model import count
from tfm.plan import memory, picture, search
from tfm.plan.plan import plan
from tfm.plan.programs import STEPS, bytes_per_chip


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('plan')


def test_training_plan_has_exact_state_and_near_flops(folder, toy):
  x = experiment(folder)
  found = plan(x, toy(4), 'train')
  params = count.count_params(x.model) * 4
  assert found.memory.bytes['parameters'] == params // 4
  assert found.memory.bytes['optimizer'] == pytest.approx(2 * params // 4, abs=64)
  assert sum(found.memory.bytes.values()) == found.memory.peak
  assert 1 <= found.work.flops / found.model_flops < 1.5
  assert {c.axes for c in found.work.collectives} == {'fsdp'}
  assert found.fits
  assert found.floor == max(found.seconds.values())
  written = json.loads(json.dumps(found.json()))
  assert written['peak_hbm_bytes_per_chip'] == found.memory.peak
  assert written['bound'] in ('compute', 'HBM', 'interconnect')


def test_programs_without_text_keep_their_memory(folder, toy, monkeypatch):
  def fail(compiled):
    raise jax.errors.JaxRuntimeError('INTERNAL: RET_CHECK failure')

  monkeypatch.setattr(jax.stages.Compiled, 'as_text', fail)
  found = plan(experiment(folder), toy(2), 'eval')
  assert found.work is None
  assert sum(found.memory.bytes.values()) == found.memory.peak > 0
  assert any('cannot read the text' in note for note in found.notes)


@pytest.mark.parametrize('step', ['prefill', 'decode'])
def test_serving_plans_shard_the_cache(folder, toy, step):
  x = experiment(folder)
  found = plan(x, toy(4), step)
  whole = x.data.batch * count.cache_bytes(x.model, x.data.length, 'float32')
  assert found.memory.bytes['cache'] >= whole // 4
  assert found.memory.bytes['cache'] < whole // 2
  assert found.tokens == x.data.batch * (x.data.length if step == 'prefill' else 1)
  assert found.work.flops == pytest.approx(found.model_flops, rel=0.6)


def test_tensor_axis_splits_heads_of_the_cache(folder, toy):
  x = experiment(folder, mesh__fsdp=2, mesh__tensor=2)
  program = STEPS['decode'](x, toy(4).devices())
  paths = jax.tree_util.tree_leaves_with_path(program.arguments['cache'])
  arrays = [a for path, a in paths if 'arrays' in jax.tree_util.keystr(path)]
  whole = x.data.batch * count.cache_bytes(x.model, x.data.length, 'float32')
  assert bytes_per_chip(arrays) == whole // 4


@pytest.mark.parametrize('loop', ['scan', 'unroll'])
def test_decode_step_does_not_copy_the_cache(folder, toy, loop):
  x = experiment(folder, mesh__fsdp=1, loop=loop, data__length=512)
  topology = toy(1)
  lowered = STEPS['decode'](x, topology.devices()).trace().lower()
  cache = x.data.batch * count.cache_bytes(x.model, x.data.length, 'float32')
  assert lowered.compile().memory_analysis().temp_size_in_bytes < cache


def test_evaluation_plan_has_no_optimizer(folder, toy):
  program = STEPS['eval'](experiment(folder), toy(2).devices())
  assert set(program.arguments) == {'parameters', 'batch'}


def test_step_that_exceeds_memory_does_not_fit(folder, toy):
  assert not plan(experiment(folder), toy(2, hbm=1000), 'eval').fits


@pytest.mark.parametrize(
  ('message', 'needed'),
  [
    ('the total memory required for HLO temporaries (27.39G) exceeds available', 27.39 * 2**30),
    ('Ran out of memory: Used 512.0M of 15.75G hbm. Exceeded', 512 * 2**20),
    ('another failure', None),
  ],
)
def test_bytes_needed_are_read_from_compiler_errors(message, needed):
  found = memory.bytes_needed(message)
  assert found == (None if needed is None else int(needed))


def test_search_finds_a_step_that_fits(folder, toy):
  x = experiment(folder)
  calls = []
  found = search.fit(x, toy(2), finalists=1, tick=lambda *a: calls.append(a))
  assert found.best is not None
  assert found.best.fits
  assert '--config.mesh.' in found.flags
  assert len(calls) == 1
  verdicts = {c.verdict for c in found.candidates}
  assert 'chosen' in verdicts
  assert any('predicted to be slower' in v for v in verdicts)
  json.dumps(found.json())


def test_search_reports_candidates_that_do_not_fit(folder, toy):
  found = search.fit(experiment(folder), toy(2, hbm=1000), finalists=1)
  assert found.best is None
  assert all('does not fit: predicted to need' in c.verdict for c in found.candidates)


def test_largest_batch_is_between_a_fit_and_a_failure(folder, toy):
  x = experiment(folder, data__batch=2)
  limit = 3_000_000
  found = search.largest(x, toy(2, hbm=limit), 'eval', 'batch')
  values = {int(c.settings.rpartition('=')[2]): c.plan for c in found.candidates}
  best = max(v for v, p in values.items() if p.fits)
  assert found.flags == f'--config.data.batch={best}'
  assert any(not p.fits and v > best for v, p in values.items())


def test_search_without_a_limit_is_an_error(folder):
  from tfm.plan.topology import parse

  with pytest.raises(errors.UserError, match='no known memory limit'):
    search.largest(experiment(folder), parse('cpu:2'), 'train', 'batch')


def test_models_without_decoding_cannot_be_planned_for_it(folder, toy):
  x = experiment(folder, model____mask='full', task='masked_lm')
  with pytest.raises(errors.UserError, match='--step: the config cannot be planned for decoding'):
    plan(x, toy(2), 'decode')


def test_bytes_per_chip_follow_the_sharding():
  mesh = jax.make_mesh((2,), ('data',), devices=jax.devices()[:2])
  where = jax.NamedSharding(mesh, jax.P('data'))
  array = jax.ShapeDtypeStruct((6, 5), 'float32', sharding=where)
  assert bytes_per_chip({'a': array}) == math.prod((3, 5)) * 4


def test_picture_is_drawn(folder, toy, tmp_path):
  path = picture.draw([plan(experiment(folder), toy(2), 'eval')], tmp_path / 'plan.png')
  assert path.read_bytes().startswith(b'\x89PNG')
