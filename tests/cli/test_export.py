import json

import pytest

from tfm.cli import main


@pytest.fixture
def saved(tmp_path):
  import jax

  from tests.hub.test_programs import decoder
  from tfm.hub import save
  from tfm.model import transformer

  spec = decoder()
  save(spec, transformer.init(spec, jax.random.key(0)), tmp_path / 'model')
  return tmp_path / 'model'


def test_export_writes_programs_and_prints_their_inputs(saved, tmp_path, capsys):
  out = tmp_path / 'out'
  words = ['export', f'--checkpoint={saved}', f'--output={out}', '--platforms=cpu', '--slots=8']
  assert main.run(words) == 0
  assert sorted(p.name for p in out.iterdir()) == [
    'forward.jax', 'params.safetensors', 'prefill.jax', 'programs.json', 'step.jax',
  ]  # fmt: skip
  assert json.loads((out / 'programs.json').read_text())['slots'] == 8
  printed = capsys.readouterr().out
  assert 'forward, prefill, step for cpu' in printed
  assert 'input_ids int32[b,t]' in printed
  assert main.run(words) == 2
  assert 'out' in capsys.readouterr().err
