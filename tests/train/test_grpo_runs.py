"""Runs that learn from samples: the reward rises, and a resumed run has the same bits."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from tests.data.test_preferences import write
from tests.train import tiny
from tfm.cli.train import complete, read_model, warm_start
from tfm.core import config
from tfm.core.errors import UserError
from tfm.data import Problems
from tfm.data.tokenizer import Byte
from tfm.hub.save import save
from tfm.model import transformer
from tfm.tasks import Grpo
from tfm.train import loop

SHARE = """
def share(prompt, response, answer):
  return response.count(answer) / 4
"""


@pytest.fixture(scope='module')
def x(tmp_path_factory):
  """Return a run that is rewarded for the letter e."""
  folder = tmp_path_factory.mktemp('grpo')
  x = config.override(tiny.experiment(folder / 'text'), 'model..dropout', '0')
  x = config.override(config.override(x, 'model.embed.vocab', '257'), 'optim.lr', '3e-2')
  (folder / 'share.py').write_text(SHARE)
  files = write(folder / 'p.jsonl', [{'prompt': p, 'answer': 'e'} for p in ('a', 'bc', 'd', 'fgh')])
  data = Problems(files=files, val_files=files, tokenizer=Byte(), length=8, batch=2)
  task = Grpo(group=8, tokens=4, beta=0.0)
  x = dataclasses.replace(x, data=data, task=task, steps=60, save_every=60, eval_every=60)
  x = config.override(x, 'task.rewards', f'({folder / "share.py"}:share,)')
  x = config.override(x, 'optim.schedule', 'constant')
  return dataclasses.replace(x, record=dataclasses.replace(x.record, sample=None))


def run(x, workdir):
  return loop.train(
    x,
    workdir,
    devices=jax.devices()[:1],
    warm_start=warm_start,
    read_model=read_model,
    complete=complete,
  )


def rewards(workdir):
  rows = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return [row['reward'] for row in rows if 'reward' in row]


def test_mean_reward_rises(x, tmp_path):
  scores = run(x, tmp_path).scores
  found = rewards(tmp_path)
  assert len(found) == 60
  assert np.mean(found[:5]) < 0.05
  assert np.mean(found[-5:]) > 0.5
  assert scores['val_reward'] > 0.5


def test_resumed_run_has_the_same_bits(x, tmp_path, capsys):
  params = transformer.init(x.model, jax.random.key(1))
  save(x.model, params, tmp_path / 'base')
  task = dataclasses.replace(x.task, beta=0.1, updates=2)
  x = dataclasses.replace(
    x, task=task, steps=6, save_every=2, eval_every=6, init_from=str(tmp_path / 'base')
  )
  whole = run(x, tmp_path / 'whole').state
  run(dataclasses.replace(x, steps=4), tmp_path / 'parts')
  parts = run(x, tmp_path / 'parts').state
  assert 'resumed from' in capsys.readouterr().out
  jax.tree.map(np.testing.assert_array_equal, whole['params'], parts['params'])
  assert list(dataclasses.replace(x, save_every=3).check()) == [
    'save_every: 3 is not divisible by the 2 updates with the same samples (task.updates). '
    'Expected a multiple, since checkpoints have no samples.'
  ]


def test_prompts_without_room_are_left_out(x, caplog, tmp_path):
  task = dataclasses.replace(x.task, tokens=6)
  data = dataclasses.replace(x.data, val_files='').open(task)
  assert len(data.parts['train']) == 3
  assert '1 of 4 prompts of the train split exceed 2 tokens' in caplog.text
  with pytest.raises(UserError, match=r'data.length: 8 tokens leave 0 for a prompt'):
    x.data.open(dataclasses.replace(task, tokens=8))
  assert list(x.task.fits_data(dataclasses.replace(x.data, length=4))) == [
    'data.length: is 4, and task.tokens=4 leave no room for a prompt. Expected more than 4.'
  ]
