import json

import pytest

from tfm.cli import main
from tfm.train import evaluate


@pytest.fixture
def scored(monkeypatch):
  calls = []

  def fake(path, split, change, most, load, **readers):
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


def test_eval_prints_metrics_of_outputs_with_intervals(monkeypatch, capsys):
  from tfm import evaluate

  calls = []

  def outputs(loaded, x, metrics, chosen, **options):
    calls.append((metrics, chosen, options))
    return {'bleu': evaluate.Score(12.345, 10.0, 15.5, 'nrefs:1')}

  opened = lambda path, change, load: (path, 'experiment', 'experiment')
  monkeypatch.setattr('tfm.train.evaluate.open_checkpoint', opened)
  monkeypatch.setattr(evaluate, 'evaluate_outputs', outputs)
  flags = ['eval', '--checkpoint=there', '--metrics=bleu', '--beams=4', '--merge_sources']
  assert main.run(flags) == 0
  assert capsys.readouterr().out.split() == ['bleu', '12.35', '[10.00,', '15.50]', 'nrefs:1']
  assert calls == [(['bleu'], evaluate.Outputs(merge_sources=True), {'seed': 0, 'beams': 4})]
  assert main.run([*flags, '--json']) == 0
  assert json.loads(capsys.readouterr().out)['bleu']['low'] == 10.0


def test_eval_ranks_choices_or_votes(monkeypatch, tmp_path, capsys):
  from tfm import evaluate

  calls = []

  def accuracy(*args, **options):
    calls.append((args, options))
    return {'accuracy': evaluate.Score(50.0, 0.0, 100.0)}

  (tmp_path / 'q.jsonl').write_text('{"prompt": "a", "choices": ["b", "c"], "answer": 0}\n')
  for name in ('evaluate_choices', 'evaluate_votes'):
    monkeypatch.setattr(evaluate, name, accuracy)
  monkeypatch.setattr('tfm.hub.load', lambda path, **options: path)
  flags = ['eval', '--checkpoint=there', f'--choices={tmp_path}/q.jsonl', '--form={}\\n{}']
  assert main.run([*flags, '--normalise=bytes']) == 0
  assert main.run([*flags, '--vote=3', '--temperature=0.7', '--shots=2']) == 0
  assert capsys.readouterr().out.split() == ['accuracy', '50.00', '[0.00,', '100.00]'] * 2
  (choices, _), (votes, options) = calls
  assert choices[2:] == (evaluate.FewShot(form='{}\n{}'), 'bytes')
  assert votes[2:] == (3, evaluate.FewShot(2, form='{}\n{}'))
  assert options == {'marker': '', 'temperature': 0.7}
  assert main.run([*flags, '--metrics=bleu']) == 2
  assert 'is set together with --choices. Expected one of them' in capsys.readouterr().err
