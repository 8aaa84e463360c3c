"""Training with quantized projections, on one device and on a mesh."""

import jax
import numpy as np
import pytest

from tests.train.tiny import experiment
from tfm.core import config, serial
from tfm.parts.quantize import TABLE
from tfm.train import Experiment
from tfm.train.build import build
from tfm.train.step import init_key

pytest.importorskip('qwix')


def steps(x, n, devices):
  """Return the losses of `n` steps on one batch."""
  built = build(x, devices)
  state, losses = built.init(init_key(x.seed)), []
  ids = np.random.default_rng(0).integers(0, 256, (8, 16), np.int32)
  batch = {'input_ids': ids, 'labels': ids, 'weights': np.ones((8, 16), np.float32)}
  for _ in range(n):
    state, metrics = built.step(state, batch)
    losses.append(float(metrics['loss']))
  return losses, built.step.lower(built.shapes, built.batch.shapes).as_text()


def test_sharded_training_computes_in_integers_with_equal_losses(tmp_path):
  x = experiment(tmp_path, quantize='int8(gradients=int8)', optim__schedule='constant')
  one, text = steps(x, 4, jax.devices()[:1])
  mesh = config.override(config.override(x, 'mesh.fsdp', '4'), 'mesh.tensor', '2')
  eight, sharded_text = steps(mesh, 4, jax.devices())
  assert 'i8>' in text
  assert 'i8>' in sharded_text
  np.testing.assert_allclose(one, eight, rtol=2e-3)
  assert one[-1] < one[0] - 0.3


def test_quantization_is_a_field_of_stored_experiments():
  x = config.override(Experiment(), 'quantize', 'fp8')
  assert x.quantize == TABLE['fp8']()
  assert serial.from_json(Experiment, serial.to_json(x)) == x
  before = serial.to_json(Experiment())
  before.pop('quantize', None)
  assert serial.from_json(Experiment, before) == Experiment()
