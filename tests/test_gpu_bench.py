"""The GPU benchmark runs on a CPU with small sizes, and reports skipped steps."""

import json
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / 'scripts' / 'bench'


@pytest.fixture
def gpu(monkeypatch):
  monkeypatch.syspath_prepend(str(BENCH))
  import gpu

  return gpu


def test_budget_of_zero_skips_every_step(gpu, tmp_path, capsys):
  out = tmp_path / 'gpu.json'
  assert gpu.main(['--minutes=0', f'--out={out}']) == 0
  parts = json.loads(out.read_text())['parts']
  assert set(parts) == {'numbers', 'kernels', 'train', 'decode', 'memory'}
  verdicts = [row['verdict'] for rows in parts.values() for row in rows]
  assert all(verdict.startswith('skipped: needs') for verdict in verdicts)
  assert 'skipped' in capsys.readouterr().out


def test_unknown_part_is_an_error(gpu, capsys):
  with pytest.raises(SystemExit):
    gpu.main(['--parts=speed'])
  assert "unknown part 'speed'" in capsys.readouterr().err


def test_kernels_are_compared_and_refusals_shown(gpu):
  rows = gpu.gpu_numbers.kernels('float32', True)
  verdicts = [next(rows)['verdict'] for _ in range(3)]
  assert verdicts[0].startswith('refused: ')
  assert verdicts[1:] == ['ok', 'ok']


def test_failed_and_slower_rivals_are_rows(gpu):
  rows = gpu.compared(
    'm', {'tfm': [1.0, 1.0], 'torch': [2.0, 2.0], 'other': 'no memory'}, 4, 'torch'
  )
  assert [row['ratio'] for row in rows] == ['2.00', '', '']
  assert rows[2]['verdict'] == 'FAILED: no memory'


@pytest.mark.large
@pytest.mark.parametrize('part', ['numbers', 'train', 'decode', 'memory'])
def test_tiny_part_runs_on_a_cpu(gpu, part, tmp_path):
  out = tmp_path / 'gpu.json'
  assert gpu.main(['--tiny', f'--parts={part}', f'--out={out}']) == 0
  assert json.loads(out.read_text())['parts'][part]
