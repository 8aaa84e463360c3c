import json

import pytest

from tfm.cli import main
from tfm.train import evaluate


@pytest.fixture
def scored(monkeypatch):
  calls = []

  def fake(path, split, change, most, load):
    calls.append((path, split, change, most))
    return {'step': 7, 'val_loss_nats': 1.25, 'val_bits_per_byte': None}

  monkeypatch.setattr(evaluate, 'evaluate_checkpoint', fake)
  return calls


def test_eval_prints_a_line_per_metric(scored, capsys):
  assert main.run(['eval', '--checkpoint=there', '--split=train', '--batches=3']) == 0
  lines = [line.split() for line in capsys.readouterr().out.splitlines()]
  assert lines == [['step', '7'], ['val_loss_nats', '1.2500'], ['val_bits_per_byte', 'unknown']]
  ((path, split, _, most),) = scored
  assert (path, split, most) == ('there', 'train', 3)


def test_eval_prints_json(scored, capsys):
  assert main.run(['eval', '--checkpoint=there', '--json']) == 0
  assert json.loads(capsys.readouterr().out)['val_loss_nats'] == 1.25


def test_eval_accepts_settings_but_no_config_file(scored, capsys):
  assert main.run(['eval', '--checkpoint=there', '--config=quickstart']) == 2
  assert 'but checkpoints have configs. Expected --config.PATH=VALUE.' in capsys.readouterr().err


def test_eval_needs_a_checkpoint(scored, capsys):
  assert main.run(['eval']) == 2
  assert '--checkpoint: is missing' in capsys.readouterr().err


def test_eval_of_an_empty_folder_is_refused(tmp_path, capsys):
  assert main.run(['eval', f'--checkpoint={tmp_path}']) == 2
  assert 'holds no checkpoint' in capsys.readouterr().err
