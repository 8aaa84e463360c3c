import json

import pytest

from tests.plan.small import experiment
from tfm.cli import main


@pytest.fixture
def config(tmp_path):
  experiment(tmp_path)  # writes the text
  path = tmp_path / 'small.py'
  path.write_text(
    'from tests.plan.small import experiment\n\n'
    f'def get_config():\n  return experiment({str(tmp_path)!r}, steps=2)\n'
  )
  return f'--config={path}'


def test_plan_prints_memory_and_work(config, tmp_path, capsys):
  picture = tmp_path / 'plan.png'
  words = ['plan', config, '--topology=cpu:2', '--step=eval', f'--picture={picture}']
  assert main.run(words) == 0
  out = capsys.readouterr().out
  for text in ('2 x cpu, mesh fsdp=2', 'parameters', 'FLOPs per chip', 'collectives', 'all-gather'):
    assert text in out
  assert picture.exists()


def test_plan_prints_one_json_object(config, capsys):
  assert main.run(['plan', config, '--topology=cpu:2', '--step=decode', '--json']) == 0
  found = json.loads(capsys.readouterr().out)
  assert found['fits'] is True
  assert found['step'] == 'decode'
  assert found['bytes']['cache'] > 0


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--topology=v9:2x2'], "unknown chip 'v9'"),
    (['--topology=cpu:2', '--fit', '--max_batch'], '--fit: cannot be combined with --max_batch'),
    (['--topology=cpu:2', '--fit', '--step=eval'], '--fit: searches training steps'),
    (['--topology=cpu:2', '--save=a.bin', '--step=eval'], '--save: writes the training step'),
    (['--topology=cpu:2', '--max_batch'], 'no known memory limit'),
    (['--topology=cpu:2', '--config.mesh.fsdp=4'], 'mesh: fsdp=4 needs 4 devices'),
  ],
)
def test_mistakes_of_plans_are_named(config, words, message, capsys):
  assert main.run(['plan', config, *words]) == 2
  assert message in capsys.readouterr().err


def test_plan_needs_an_experiment(tmp_path, capsys):
  path = tmp_path / 'model.py'
  path.write_text('from tfm import zoo\n\ndef get_config():\n  return zoo.get("gpt2")\n')
  assert main.run(['plan', f'--config={path}', '--topology=cpu:2']) == 2
  assert 'Expected a config that returns an Experiment' in capsys.readouterr().err


def test_search_prints_candidates_and_flags(config, toy, capsys, monkeypatch):
  toy(2)
  assert main.run(['plan', config, '--topology=toy:2', '--fit', '--finalists=1']) == 0
  out = capsys.readouterr().out
  assert 'chosen' in out
  assert 'Best: --config.mesh.' in out
