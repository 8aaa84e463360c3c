"""Bad steps: skipped updates, rewinds, and the audit trail."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.tiny import experiment
from tfm.core import config
from tfm.data.corpus import Corpus
from tfm.tasks import CausalLM
from tfm.train import Recover, loop, recover
from tfm.train.audit import Audit, intervals
from tfm.train.build import build
from tfm.train.guard import Guard, Rewound, spike_limit
from tfm.train.metrics import read

ONE = jax.devices()[:1]
#: Bytes that the text does not have. Their batches have the loss NaN, or three times the loss.
BAD, SPIKE = 255, 254


@pytest.fixture
def batches(monkeypatch):
  """Replaces the tokens of batches: {index of the batch: token}."""
  tokens, was_batch, was_loss = {}, Corpus.batch, CausalLM.loss

  def batch(self, split, seed, step, examples=None):
    raw = was_batch(self, split, seed, step, examples)
    if step in tokens:
      raw['tokens'] = np.full_like(raw['tokens'], tokens[step])
    return raw

  def loss(self, forward, batch, key):
    ratios = was_loss(self, forward, batch, key)
    spoil = jnp.where(jnp.any(batch['input_ids'] == BAD), jnp.nan, 1)
    spoil = jnp.where(jnp.any(batch['input_ids'] == SPIKE), 3, spoil)
    return ratios | {'loss': ratios['loss']._replace(sum=ratios['loss'].sum * spoil)}

  monkeypatch.setattr(Corpus, 'batch', batch)
  monkeypatch.setattr(CausalLM, 'loss', loss)
  return tokens


@pytest.fixture
def kill(monkeypatch):
  """Ends a run at the n-th time that it reaches a step, as SIGKILL would."""

  def kill_at(step, times=1):
    reached = []

    def at(self, now):
      reached.append(now)
      if reached.count(step) == times:
        raise MemoryError('killed')
      return False

    monkeypatch.setattr(recover.Preemption, 'at', at)

  return kill_at


def same(a, b):
  return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b)))


def events(workdir):
  return [json.loads(line) for line in (workdir / 'audit.jsonl').read_text().splitlines()]


def test_bad_step_changes_only_the_step_number(tmp_path, batches):
  x = experiment(tmp_path, optim__ema=0.9)
  built = build(x, ONE)
  state = built.init(jax.random.key(0))
  before = jax.tree.map(np.asarray, state)
  tokens = jnp.full([8, 16], BAD)
  features = {k: jnp.full(a.shape, BAD, a.dtype) for k, a in built.batch.shapes.items()}
  after, metrics = built.step(state, features | {'input_ids': tokens.astype(jnp.int32)})
  assert np.isnan(metrics['loss'])
  assert int(after.pop('step')) == before.pop('step') + 1
  assert same(after, before)


def test_finite_steps_match_a_run_without_skipping(tmp_path, batches):
  runs = [
    loop.train(experiment(tmp_path, steps=4, recover__skip=skip), tmp_path / str(skip), devices=ONE)
    for skip in (0, 5)
  ]
  assert same(runs[0].state, runs[1].state)
  assert not (tmp_path / '5' / 'audit.jsonl').exists()


def test_bad_batch_is_skipped_and_audited(tmp_path, batches, kill, capsys):
  batches[3] = BAD
  whole = loop.train(experiment(tmp_path), tmp_path / 'w', devices=ONE)
  why = 'loss is nan, grad_norm is nan'
  assert events(tmp_path / 'w') == [{'what': 'skip', 'step': 4, 'samples': [[24, 31]], 'why': why}]
  text = (
    'step 4: loss is nan, grad_norm is nan. Its update is skipped. The batch has samples 24..31'
  )
  assert text in capsys.readouterr().out
  lines = [row for row in read(tmp_path / 'w' / 'metrics.jsonl') if 'loss_nats' in row]
  assert [row['step'] for row in lines if row.get('skipped')] == [4]
  assert lines[3]['grad_norm'] is None
  kill(6)
  with pytest.raises(MemoryError):
    loop.train(experiment(tmp_path, save_every=3), tmp_path / 'killed', devices=ONE)
  kill(None)
  again = loop.train(experiment(tmp_path, save_every=3), tmp_path / 'killed', devices=ONE)
  assert same(again.state, whole.state)
  assert [row['what'] for row in events(tmp_path / 'killed')] == ['skip', 'resume', 'skip']
  assert Audit(tmp_path / 'killed').bad == [4]


def test_too_many_bad_steps_stop_the_run(tmp_path, batches):
  batches.update({2: BAD, 3: BAD, 4: BAD})
  with pytest.raises(
    recover.Stopped,
    match=r'^step 5: loss is nan, .* after 3 bad steps in a row and 3 in total \(recover.skip=2, '
    r'recover.skip_total=100\). The batch has samples 32..39 of seed 0. .*audit.jsonl lists the '
    r'others. Earlier checkpoints are kept.',
  ) as e:
    loop.train(experiment(tmp_path, recover__skip=2), tmp_path / 'w', devices=ONE)
  assert e.value.status == recover.DIVERGED


def test_spike_rewinds_and_skips_its_window(tmp_path, batches, kill, capsys):
  changes = {
    'steps': 10, 'save_every': 3, 'eval_every': 10, 'recover__threshold': 20, 'recover__window': 3,
  }  # fmt: skip
  batches[7] = SPIKE
  whole = loop.train(experiment(tmp_path, **changes), tmp_path / 'w', devices=ONE)
  rewind = next(row for row in events(tmp_path / 'w') if row['what'] == 'rewind')
  assert (rewind['step'], rewind['to'], rewind['samples']) == (8, 6, [[48, 63]])
  assert rewind['why'].startswith('loss is ')
  output = capsys.readouterr().out
  assert (
    'Training returns to step 6 and skips the batches in between, with samples 48..63: ' in output
  )
  assert 'rewind 1 of 3' in output
  steps = [row['step'] for row in read(tmp_path / 'w' / 'metrics.jsonl') if 'loss_nats' in row]
  assert steps == list(range(1, 11))

  kill(8, times=2)  # after the rewind, and before the next checkpoint
  with pytest.raises(MemoryError):
    loop.train(experiment(tmp_path, **changes), tmp_path / 'killed', devices=ONE)
  kill(None)
  again = loop.train(experiment(tmp_path, **changes), tmp_path / 'killed', devices=ONE)
  assert same(again.state, whole.state)
  assert sum(row['what'] == 'rewind' for row in events(tmp_path / 'killed')) == 1


def fake_guard(tmp_path, **fields):
  class Data:
    def batch(self, split, seed, step):
      return {'sample': np.arange(8) + 8 * step}

  x = experiment(tmp_path, **{f'recover__{k}': v for k, v in fields.items()})
  said = []
  return Guard(x, Data(), Audit(tmp_path), said.append), said


def test_spike_after_the_last_rewind_stops_the_run(tmp_path):
  guard, _ = fake_guard(tmp_path, threshold=10, window=2, rewinds=1)
  metrics = lambda loss: {'loss': loss, 'grad_norm': 1.0}
  for step, loss in ((1, 2.0), (2, 2.1)):
    assert not guard.check(step, metrics(loss), lambda: 0)
  with pytest.raises(Rewound):
    guard.check(3, metrics(9.0), lambda: 0)
  guard.check(1, metrics(2.0), lambda: 0)
  guard.check(2, metrics(2.1), lambda: 0)
  with pytest.raises(
    recover.Stopped,
    match=r'^step 3: loss is 9, above the limit of 2.55. Training stops after 1 rewinds '
    r'\(recover.rewinds=1\). The batches since step 0 have samples 24..47 of seed 0',
  ):
    guard.check(3, metrics(9.0), lambda: 0)


def test_bad_steps_in_a_row_rewind_if_spikes_do(tmp_path):
  guard, said = fake_guard(tmp_path, skip=1, threshold=10)
  bad = {'loss': np.inf, 'grad_norm': 1.0}
  assert guard.check(3, bad, lambda: 2)
  with pytest.raises(Rewound):
    guard.check(4, bad, lambda: 2)
  assert 'loss is inf in 2 steps in a row. Training returns to step 2' in said[-1]
  assert Audit(tmp_path).skipped_batches(2) == 2
  assert Audit(tmp_path).skipped_batches(1) == 0


def test_first_bad_step_stops_a_run_without_skipping(tmp_path):
  guard, _ = fake_guard(tmp_path, skip=0)
  with pytest.raises(
    recover.Stopped, match=r'^step 3: loss is inf. Training stops. The batch has samples 16..23 of'
  ):
    guard.check(3, {'loss': np.inf, 'grad_norm': 1.0}, lambda: 2)


def test_spike_limit_is_robust_to_one_outlier():
  assert spike_limit([1.0, 2.0, 3.0], 2) == 4
  assert spike_limit([1.0, 2.0, 3000.0], 2) == 4
  assert spike_limit([2.0, 2.0, 2.0], 5) == pytest.approx(2.1)


def test_half_a_line_of_the_audit_trail_is_ignored(tmp_path):
  audit = Audit(tmp_path)
  audit.skip(2, [[0, 3]], 'why')
  with open(audit.path, 'a') as file:
    file.write('{"what": "sk')
  again = Audit(tmp_path)
  again.skip(3, [[4, 5]], 'why')
  assert Audit(tmp_path).bad == [2, 3]


def test_samples_are_listed_as_intervals():
  assert intervals([5, 0, 1, 2]) == [[0, 2], [5, 5]]


def test_wrong_recovery_fields_are_errors():
  found = [
    config.violations(Recover(skip=-1)), config.violations(Recover(window=1)),
    config.violations(Recover(threshold=0.0)),
  ]  # fmt: skip
  assert found == [
    ['skip: is -1. Expected 0 or more.'],
    ['window: is 1. Expected 2 or more.'],
    ['threshold: is 0.0. Expected a positive number, or none.'],
  ]
