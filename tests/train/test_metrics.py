import json
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from tests.train.tiny import experiment
from tfm.core.errors import UserError
from tfm.tasks import CausalLM, Regress
from tfm.train import distributed, evaluate, metrics, report
from tfm.train.build import build_eval
from tfm.train.peaks import peak
from tfm.train.speed import Speed


def row(**values):
  return {
    'loss_nats': 2.0,
    'grad_norm': 1.0,
    'lr': 1e-3,
    'tokens_per_s': None,
    'mfu': None,
    **values,
  }


def test_later_and_incomplete_metric_lines_are_dropped(tmp_path):
  first = metrics.Metrics(tmp_path, 0, 10, CausalLM.shown)
  for step in (1, 2, 3):
    first.train(step, row())
  first.eval(3, {'val_loss_nats': 1.5, 'val_bits_per_byte': None})
  first.close()
  with open(tmp_path / 'metrics.jsonl', 'a') as file:
    file.write('{"step": 4, "loss')
  again = metrics.Metrics(tmp_path, 2, 10, CausalLM.shown)
  assert again.last_scores == {}
  again.train(3, row(loss_nats=1.0))
  again.close()
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert [(json.loads(line)['step'], json.loads(line)['loss_nats']) for line in lines] == [
    (1, 2.0),
    (2, 2.0),
    (3, 1.0),
  ]
  assert len(list((tmp_path / 'tensorboard').iterdir())) == 2


def test_evaluation_shows_its_progress(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(metrics, '_LINE_SECONDS', 0.0)
  run = metrics.Metrics(tmp_path, 0, 10, CausalLM.shown)
  assert list(run.counted(iter('abc'), 3)) == ['a', 'b', 'c']
  run.close()
  assert [line.split('  ')[0] for line in capsys.readouterr().out.splitlines()] == [
    f'scoring {n}/3' for n in (1, 2, 3)
  ]


def test_time_left_excludes_the_first_step(tmp_path, monkeypatch, capsys):
  clock = [0.0]
  monkeypatch.setattr(metrics.time, 'monotonic', lambda: clock[0])
  run = metrics.Metrics(tmp_path, 0, 20, CausalLM.shown)
  for step, now in ((1, 60.0), (10, 69.0)):
    clock[0] = now
    run.train(step, row())
    run.started(step)
  run.close()
  assert [line.split('2.0000')[1] for line in capsys.readouterr().out.splitlines()] == ['']
  run = metrics.Metrics(tmp_path, 10, 20, CausalLM.shown)
  run.started(11)
  clock[0] = 87.0
  run.train(12, row())
  run.close()
  assert capsys.readouterr().out.endswith('  2:24 left\n')


@pytest.mark.parametrize('most', [None, 1, 2, 3, 5, 1000])
def test_count_matches_the_evaluated_batches(tmp_path, most):
  x = experiment(tmp_path)
  corpus = x.data.open(x.task)
  layout, rows, _ = build_eval(x, jax.devices()[:1])
  n, every = evaluate.count(x, corpus, most=most)
  found = list(evaluate.batches(x, corpus, layout, rows, most=most))
  assert len(found) == n == min(most or 1000, corpus.eval_steps('val', x.data.batch))
  second = [raw['tokens'] for raw in corpus.eval_batches('val', x.data.batch)][every : every + 1]
  assert n == 1 or (found[1]['input_ids'] == second[0][:, :-1]).all()


def test_curve_needs_a_step(tmp_path):
  assert report.draw(tmp_path, [], CausalLM.shown) is None
  rows = [{'step': 1, **row()}, {'step': 1, 'val_loss_nats': 1.0}]
  assert report.draw(tmp_path, rows, CausalLM.shown) == tmp_path / 'curve.png'
  assert report.draw(tmp_path, rows, Regress.shown) is None


def test_predictions_are_drawn_as_a_grid(tmp_path):
  assert report.draw_grid(tmp_path, []) is None
  path = report.draw_grid(tmp_path, [(np.zeros((8, 8, 3)), 'a'), (np.ones((8, 8, 3)), 'b (is c)')])
  assert path == tmp_path / 'predictions.png'
  assert path.read_bytes().startswith(b'\x89PNG')


def device(kind, platform='gpu'):
  return SimpleNamespace(device_kind=kind, platform=platform)


@pytest.mark.parametrize(
  ('kind', 'flops'),
  [
    ('TPU v4', 275e12),
    ('TPU v5 lite', 197e12),
    ('TPU v5', 459e12),
    ('TPU v6 lite', 918e12),
    ('TPU7x', 1153.5e12),
    ('NVIDIA A100-SXM4-40GB', 312e12),
    ('NVIDIA H100 80GB HBM3', 989e12),
    ('NVIDIA L4', 121e12),
    ('Abacus', None),
  ],
)
def test_device_peaks_match_data_sheets(kind, flops):
  assert peak(device(kind)) == flops


def test_mfu_counts_three_forward_passes(tmp_path):
  x = experiment(tmp_path)
  fast = Speed(x, [device('TPU v4')] * 2)
  assert fast.read(1, now=10.0) == {'tokens_per_s': None, 'mfu': None}
  from tfm.model.count import flops_per_token

  found = fast.read(3, now=12.0)
  assert found['tokens_per_s'] == 8 * 16
  assert found['mfu'] == pytest.approx(3 * flops_per_token(x.model, 16) * 8 * 16 / (2 * 275e12))
  slow = Speed(x, [device('cpu', 'cpu')])
  slow.read(1, now=0.0)
  assert slow.read(2, now=1.0) == {'tokens_per_s': 8 * 16, 'mfu': None}


def test_incomplete_process_variables_are_an_error(monkeypatch):
  monkeypatch.setenv('TFM_COORDINATOR', 'localhost:1')
  with pytest.raises(
    UserError,
    match=r'^environment: TFM_COORDINATOR is set, but not TFM_PROCESSES, TFM_PROCESS. Expected all',
  ):
    distributed.start()
  monkeypatch.setenv('TFM_PROCESSES', '2')
  monkeypatch.setenv('TFM_PROCESS', 'one')
  with pytest.raises(
    UserError, match=r'TFM_PROCESSES=2, TFM_PROCESS=one are not valid. Expected two whole numbers.'
  ):
    distributed.start()
  monkeypatch.setenv('TFM_PROCESS', '2')
  with pytest.raises(
    UserError, match=r'TFM_PROCESS=2 is out of range. Expected 0 to 1, because TFM_PROCESSES=2.'
  ):
    distributed.start()


def test_events_do_not_import_pytorch(tmp_path):
  (tmp_path / 'torch.py').write_text('touched = 1')
  code = (
    'import sys, tfm.train.events; assert "torch" not in sys.modules; import torch; '
    'assert torch.touched'
  )
  path = os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])
  subprocess.run([sys.executable, '-c', code], env={**os.environ, 'PYTHONPATH': path}, check=True)
