"""A classifier of images from its files to its pictures: trained, killed, resumed, evaluated."""

import dataclasses
import json
import os
from pathlib import Path
import subprocess
import sys

import jax
import numpy as np
from PIL import Image
import pytest

from tests.train.tiny_images import CLASSES, experiment
from tfm.cli import main
from tfm.core import config, errors
from tfm.data import Images
from tfm.model import count
from tfm.train import loop
from tfm.train.metrics import read
from tfm.train.speed import flops_per_step

ONE = jax.devices()[:1]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('images')


@pytest.fixture(scope='module')
def whole(folder):
  """An uninterrupted run."""
  return folder / 'whole', loop.train(experiment(folder), folder / 'whole', devices=ONE)


def rows(workdir):
  timeless = ('examples_per_s', 'mfu')
  kept = lambda row: {k: v for k, v in row.items() if k not in timeless}
  return list(map(kept, read(workdir / 'metrics.jsonl')))


def killed(folder, workdir, step):
  """The exit status of a program that is killed at a step."""
  # One device, but compiled as here: other flags are other programs, and other last bits.
  flags = [f for f in os.environ['XLA_FLAGS'].split() if 'device_count' not in f]
  command = [
    sys.executable,
    '-m',
    'tests.train.tiny_images',
    folder,
    workdir,
    json.dumps({'kill': [step, 'SIGKILL']}),
  ]
  root = Path(__file__).parent.parent.parent
  return subprocess.run(
    command, env=os.environ | {'XLA_FLAGS': ' '.join(flags)}, cwd=root, timeout=300
  ).returncode


def test_metrics_have_names_and_units(whole):
  workdir, trained = whole
  first, *_ = lines = read(workdir / 'metrics.jsonl')
  assert set(first) == {'step', 'loss_nats', 'accuracy', 'grad_norm', 'lr', 'examples_per_s', 'mfu'}
  assert [line['step'] for line in lines if 'val_accuracy' in line] == [3, 6]
  assert set(trained.scores) == {'val_loss_nats', 'val_accuracy'}
  assert not (workdir / 'samples.txt').exists()


def test_pictures_are_images(whole):
  for name in ('curve.png', 'predictions.png'):
    with Image.open(whole[0] / name) as picture:
      picture.load()
      assert min(picture.size) > 100


def test_killed_run_ends_with_the_same_bits(folder, whole):
  workdir = folder / 'killed'
  assert killed(folder, workdir, 5) == -9
  trained = loop.train(experiment(folder), workdir, devices=ONE)
  jax.tree.map(np.testing.assert_array_equal, trained.state, whole[1].state)
  assert rows(workdir) == rows(whole[0])


def test_eight_devices_have_the_losses_of_one(folder, whole):
  mesh = {'mesh__data': 2, 'mesh__fsdp': 2, 'mesh__tensor': 2}
  loop.train(experiment(folder, **mesh), folder / 'mesh')
  for mine, its in zip(rows(folder / 'mesh'), rows(whole[0]), strict=True):
    assert mine == pytest.approx(its, abs=2e-5)


def test_eval_prints_the_accuracy(whole, capsys):
  workdir, trained = whole
  assert main.run(['eval', f'--checkpoint={workdir}', '--json']) == 0, capsys.readouterr().err
  found = json.loads(capsys.readouterr().out)
  assert found == {'step': 6, **trained.scores}
  # Five images in batches of two and of eight: padding has no weight.
  assert main.run(['eval', f'--checkpoint={workdir}', '--config.data.batch=2', '--json']) == 0
  assert json.loads(capsys.readouterr().out) == pytest.approx(found, rel=1e-5)


def test_classifier_learns_rows_from_columns(folder):
  often = {'steps': 60, 'eval_every': 60, 'save_every': 60}
  changes = {
    'data__augment': 'Augment(flip=true)',
    'optim__ema': 'none',
    'optim__schedule__warmup': 5,
    **often,
  }
  trained = loop.train(experiment(folder, **changes), folder / 'learned', devices=ONE)
  assert trained.scores['val_accuracy'] == 1


@pytest.mark.parametrize('swap', ['relative=rope', 'norm=rms'])
def test_parts_are_swapped_by_flags(folder, swap):
  path, _, value = swap.partition('=')
  x = config.override(experiment(folder, steps=1), f'model..{path}', value)
  assert np.isfinite(loop.train(x, folder / path, devices=ONE).scores['val_loss_nats'])


def test_folders_of_files_train_too(folder):
  x = experiment(folder, steps=2, data__augment='Augment(flip=true)')
  arrays = np.load(folder / 'images.npy')
  for i, (image, label) in enumerate(zip(arrays, np.load(folder / 'labels.npy'), strict=True)):
    below = folder / 'files' / CLASSES[label]
    below.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(below / f'{i:02}.png')
  data = Images(
    root=str(folder / 'files'),
    classes=CLASSES,
    shape=(1, 8, 8),
    batch=8,
    cache=str(folder / 'cache'),
  )
  x = dataclasses.replace(x, data=data)
  assert np.isfinite(loop.train(x, folder / 'of-files', devices=ONE).scores['val_loss_nats'])


def test_images_of_another_size_are_refused(folder):
  x = config.override(experiment(folder), 'model.embed.channels', '3')
  with pytest.raises(errors.UserError, match=r'pixel_values has shape .*Expected \[B, C=3, H, W\]'):
    loop.train(x, folder / 'refused', devices=ONE)


def test_flops_of_images_are_counted(folder):
  x = experiment(folder)
  assert flops_per_step(x) == 3 * 8 * count.flops_of_document(x.model, 0) > 0
  assert flops_per_step(config.override(x, 'model.embed.image', '16')) is None
