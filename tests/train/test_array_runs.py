"""Training on a dataset of arrays, which has no text and no vocabulary."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.tasks.dataset import MADE, Source
from tests.train.tiny import experiment
from tfm import data as data_lib
from tfm.core import config
from tfm.core.errors import ConfigError
from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.head import classify as head
from tfm.parts.mask import Mask
from tfm.parts.mixer import Attention
from tfm.tasks import Classify, Contrastive
from tfm.train import Experiment, evaluate, loop
from tfm.train.build import build
from tfm.train.metrics import read

ONE = jax.devices()[:1]


@pytest.fixture
def x(monkeypatch, tmp_path):
  """Two classes of rows of tokens, distinguished by their first token."""
  monkeypatch.setitem(data_lib.TABLE._entries, 'rows', Source)
  ids = np.random.default_rng(0).integers(0, 16, (60, 8)).astype(np.int32)
  labels = (ids[:, 0] >= 8).astype(np.int32)
  monkeypatch.setitem(
    MADE, 'rows', ({'input_ids': ids, 'labels': labels}, {'input_ids': 'BT', 'labels': 'B'}, 'ab')
  )
  block = Block(Attention(2, mask=Mask()))
  return Experiment(
    model=Model(
      Tokens(16), 16, (Segment((block,)),), heads={'classify': head.Classify(2, 'first')}
    ),
    data=Source(batch=8, name='rows'),
    task=Classify(),
    steps=4,
    save_every=2,
    eval_every=2,
    record=dataclasses.replace(Experiment().record, log_every=1),
  )


def test_run_of_arrays_has_the_metrics_of_its_task(x, tmp_path, monkeypatch):
  picture = lambda self, dataset, raw, outputs: [
    (np.zeros((4, 4, 3)), str(outputs['logits'].shape))
  ]
  monkeypatch.setattr(Classify, 'picture', picture)
  trained = loop.train(x, tmp_path, devices=ONE)
  first = read(tmp_path / 'metrics.jsonl')[0]
  assert set(first) == {'step', 'loss_nats', 'accuracy', 'grad_norm', 'lr', 'examples_per_s', 'mfu'}
  assert set(trained.scores) == {'val_loss_nats', 'val_accuracy'}
  assert (tmp_path / 'predictions.png').exists()
  assert evaluate.evaluate_checkpoint(tmp_path) == {
    'step': 4,
    **{name: pytest.approx(value, rel=1e-6) for name, value in trained.scores.items()},
  }


def test_resumed_run_of_arrays_is_bit_identical(x, tmp_path):
  whole = loop.train(x, tmp_path / 'whole', devices=ONE)
  half = config.override(dataclasses.replace(x, steps=2), 'optim.schedule.horizon', '4')
  loop.train(half, tmp_path / 'half', devices=ONE)
  longer = config.override(x, 'optim.schedule.horizon', '4')
  again = loop.train(longer, tmp_path / 'half', devices=ONE)
  jax.tree.map(np.testing.assert_array_equal, again.state['params'], whole.state['params'])


def test_array_batches_are_sharded(x):
  built = build(x, jax.devices())
  assert built.batch.shardings['input_ids'].spec == jax.P(('data',))
  lowered = built.step.lower(built.shapes, built.batch.shapes)
  assert lowered.out_info[1]['accuracy'].shape == ()


def test_batch_dependent_loss_is_not_accumulated(tmp_path):
  x = dataclasses.replace(experiment(tmp_path, optim__accumulate=2), task=Contrastive())
  with pytest.raises(
    ConfigError,
    match=r'accumulate: is 2, but the loss of contrastive needs the whole batch. Expected 1',
  ):
    config.validate(x)
