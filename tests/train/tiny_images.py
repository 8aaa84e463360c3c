"""A ViT of two layers on 8 x 8 images.

As a program: `python -m tests.train.tiny_images DIR WORKDIR JSON`.
"""

from pathlib import Path
import sys

import numpy as np

from tests.train import tiny
from tfm.core import config
from tfm.data import Arrays, Augment
from tfm.model.spec import Block, Model, Segment
from tfm.optim import AdamW
from tfm.parts.embed.patches import Patches
from tfm.parts.ffn import Mlp
from tfm.parts.head import classify
from tfm.parts.mask import Mask
from tfm.parts.mixer import Attention
from tfm.tasks import Classify
from tfm.train import Experiment, Record

CLASSES = ('rows', 'columns', 'plain')


def write(folder: Path) -> None:
  """Writes 42 images of rows, columns or nothing, and noise."""
  rng = np.random.default_rng(0)
  labels = np.arange(42) % 3
  images = rng.integers(0, 40, (42, 8, 8), np.uint8)
  for image, label in zip(images, labels, strict=True):
    image[(np.s_[::4], np.s_[:, ::4], np.s_[:0])[label]] += 200
  for name, array in (('images', images), ('labels', labels)):
    np.save(folder / f'new-{name}.npy', array)
    (folder / f'new-{name}.npy').replace(folder / f'{name}.npy')


def experiment(folder: Path, **changes) -> Experiment:
  """Six steps of 8 images, of which every seventh is held out."""
  folder = Path(folder)
  if not (folder / 'labels.npy').exists():
    folder.mkdir(parents=True, exist_ok=True)
    write(folder)
  files = {name: str(folder / f'{name}.npy') for name in ('images', 'labels')}
  augment = Augment(pad=1, distort=1, mixup=0.2, cutmix=1.0)
  block = Block(Attention(4, mask=Mask()), Mlp(32), dropout=0.1)
  head = classify.Classify(len(CLASSES), 'mean')
  model = Model(
    Patches(4, 8, 1, class_token=False), 16, (Segment((block,), 2),), heads={'classify': head}
  )
  x = Experiment(
    model=model,
    data=Arrays(**files, val_every=7, classes=CLASSES, shape=(1, 8, 8), augment=augment, batch=8),
    task=Classify(label_smoothing=0.1),
    optim=AdamW(lr=1e-2, ema=0.9),
    steps=6,
    save_every=2,
    eval_every=3,
    record=Record(log_every=1),
  )
  for path, text in changes.items():
    x = config.override(x, path.replace('__', '.'), str(text))
  return x


if __name__ == '__main__':
  sys.exit(tiny.main(experiment))
