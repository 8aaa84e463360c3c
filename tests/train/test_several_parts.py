"""Runs on mixtures, and runs of several tasks."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.tiny import experiment
from tfm.core.config import override
from tfm.core.errors import UserError
from tfm.data import Mixture, SeveralSources, Text
from tfm.data.tokenizer import Byte
from tfm.parts.embed.tokens import Tokens
from tfm.tasks import CausalLM, MaskedLM, SeveralTasks
from tfm.train import evaluate, loop, shard
from tfm.train import step as step_lib
from tfm.train.build import build
from tfm.train.metrics import read

ONE = jax.devices()[:1]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  root = tmp_path_factory.mktemp('parts')
  for name, words in (('web', 'all happy families are alike. '), ('code', 'for i in x: f(i)\n')):
    (root / f'{name}.txt').write_text(words * 60)
  return root


def _x(folder, **changes):
  x = experiment(folder)
  model = override(dataclasses.replace(x.model, embed=Tokens(260)), '..dropout', '0')
  return dataclasses.replace(x, model=model, **changes)


def _mixture(folder, **changes):
  parts = tuple(Text(files=f'{folder}/{name}.txt') for name in ('web', 'code'))
  fields = {'tokenizer': Byte(), 'length': 16, 'batch': 8, 'cache': str(folder / 'cache')}
  return Mixture(parts=parts, names=('web', 'code'), weights=(3, 1), **fields | changes)


def _several(folder):
  parts = {
    'lm': Text(files=f'{folder}/web.txt', length=16),
    'mlm': Text(files=f'{folder}/code.txt', length=12),
  }
  return SeveralSources(parts=parts, tokenizer=Byte(), batch=8, cache=str(folder / 'cache'))


def test_mixture_trains_with_metrics_of_each_part_and_resumes(folder, tmp_path, capsys):
  x = _x(folder, data=_mixture(folder, packing='stream_segments'))
  whole = loop.train(x, tmp_path / 'whole', devices=ONE)
  scores = whole.scores
  assert 'data: 75.00% of the examples are from web' in capsys.readouterr().out
  parts = [scores['val_loss_nats/web'], scores['val_loss_nats/code']]
  assert min(parts) < scores['val_loss_nats'] < max(parts)
  lines = [r for r in read(tmp_path / 'whole' / 'metrics.jsonl') if 'val_loss_nats/web' in r]
  assert [r['step'] for r in lines] == [3, 6]
  # Two steps in one run, the rest in another, as after a kill.
  loop.train(dataclasses.replace(x, steps=2), tmp_path / 'again', devices=ONE)
  again = loop.train(x, tmp_path / 'again', devices=ONE)
  assert jax.tree.all(jax.tree.map(np.array_equal, whole.state, again.state))
  found = evaluate.evaluate_checkpoint(tmp_path / 'whole')
  assert found['val_loss_nats/code'] == pytest.approx(scores['val_loss_nats/code'], rel=1e-5)


def test_limited_evaluation_scores_every_part(folder):
  x = _x(folder, data=_mixture(folder))
  dataset = x.data.open(x.task)
  assert set(evaluate.parts(x, dataset)) == {'web', 'code'}
  for most in (1, 2, 3):
    some = evaluate.parts(x, dataset, most=most)
    n, stride = evaluate.count(x, dataset, most=most)
    assert set(some) == {'web', 'code'}
    assert n == len(some) == len(list(dataset.eval_batches('val', 8, every=stride)))


def test_run_longer_than_its_epochs_is_an_error_at_its_start(folder, tmp_path):
  x = _x(folder, data=_mixture(folder, epochs=(1.0, 0.5)), steps=1000)
  with pytest.raises(UserError, match=r'data.epochs: all parts are used up after \d+ examples'):
    loop.train(x, tmp_path, devices=ONE)
  assert not (tmp_path / 'checkpoints').exists()


def _trained(x, steps=3):
  """Return the parameters and the losses after some steps."""
  built, dataset = build(x, ONE), x.data.open(x.task)
  state, losses = built.init(step_lib.init_key(0)), []
  for step in range(steps):
    features = x.task.features(dataset.batch('train', 0, step), dataset)
    state, metrics = built.step(state, jax.tree.map(jnp.asarray, features))
    losses.append({name: float(value) for name, value in metrics.items()})
  return state['params'], losses


@pytest.mark.parametrize('name', ['lm', 'mlm'])
def test_task_with_all_the_weight_trains_as_it_does_alone(folder, name):
  tasks, sources = {'lm': CausalLM(), 'mlm': MaskedLM(rate=0.5)}, _several(folder)
  weights = dict.fromkeys(tasks, 0.0) | {name: 1.0}
  x = _x(folder, data=sources, task=SeveralTasks(parts=tasks, weights=weights))
  assert not list(x.check())
  params, losses = _trained(x)
  alone, losses_alone = _trained(dataclasses.replace(x, data=sources.part(name), task=tasks[name]))
  for a, b in zip(losses, losses_alone, strict=True):
    assert a['loss'] == pytest.approx(a[f'loss/{name}'], rel=1e-6)
    assert a[f'accuracy/{name}'] == pytest.approx(b['accuracy'], abs=1e-6)
    assert a['loss'] == pytest.approx(b['loss'], rel=1e-5)
  jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, atol=1e-5), params, alone)


def test_several_tasks_train_with_metrics_of_each(folder, tmp_path):
  task = SeveralTasks(parts={'lm': CausalLM(), 'mlm': MaskedLM()}, weights={'mlm': 0.5})
  x = _x(folder, data=_several(folder), task=task)
  trained = loop.train(x, tmp_path, devices=ONE)
  first = json.loads((tmp_path / 'metrics.jsonl').read_text().splitlines()[0])
  expected = first['loss/lm'] + 0.5 * first['loss/mlm']
  assert first['loss'] == pytest.approx(expected, rel=1e-5)
  assert 'loss_nats/mlm' in first
  scores = trained.scores
  expected = scores['val_loss_nats/lm'] + 0.5 * scores['val_loss_nats/mlm']
  assert scores['val_loss'] == pytest.approx(expected, rel=1e-5)
  found = evaluate.evaluate_checkpoint(tmp_path)
  assert found['val_loss_nats/mlm'] == pytest.approx(scores['val_loss_nats/mlm'], rel=1e-5)


def test_accumulation_of_several_tasks_is_an_error(folder):
  x = _x(
    folder, data=_several(folder), task=SeveralTasks(parts={'lm': CausalLM(), 'mlm': MaskedLM()})
  )
  (message,) = override(x, 'optim.accumulate', '2').check()
  assert 'the loss of several needs the whole batch' in message


def test_processes_hold_their_share_of_each_task(monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  sharding = shard.batch_axis(
    jax.make_mesh((2,), ('data',), devices=jax.devices()[:2]), {'B': ('data',)}
  )
  features = {'a': np.arange(6), 'b': np.arange(2)}
  arrays = shard.put(features, dict.fromkeys(features, sharding), 8, slice(0, 8))
  assert [s.data.tolist() for s in arrays['b'].addressable_shards] == [[0], [1]]
