r"""Train an ELECTRA, which finds the tokens that a small generator has replaced.

  tfm train --config=electra --config.data='text(files=corpus/*.txt)' --workdir=runs/electra
  tfm train --config=electra:base --config.data='text(files=corpus/*.txt)' --workdir=runs/electra

Without data the text is the source of the Python standard library, which is too little for these
models. The generator has a quarter of the width, and shares the token table (arXiv:2003.10555).
"""

import dataclasses

from tfm.core.errors import ConfigError
from tfm.core.precision import Precision
from tfm.data.stdlib import Stdlib
from tfm.data.tokenizer import Bpe
from tfm.model.spec import Model, Tower
from tfm.optim import AdamW
from tfm.optim.schedule import Linear
from tfm.parts.act import Gelu
from tfm.parts.head.classify import Classify
from tfm.tasks import ReplacedToken
from tfm.train import Experiment, Record
from tfm.train.mesh import Mesh
from tfm.zoo import electra

#: Depth, width, heads and width of the token table.
SIZES = {'small': (12, 256, 4, 128), 'base': (12, 768, 12, 768), 'large': (24, 1024, 16, 1024)}


def get_config(size: str = 'small') -> Experiment:
  """AdamW over batches of 128 sequences of 128 tokens, the recipe of the small model."""
  if size not in SIZES:
    raise ConfigError(f'unknown size {size!r}. Expected {", ".join(SIZES)}.')
  return Experiment(
    model=_model(*SIZES[size]),
    data=Stdlib(tokenizer=Bpe(16_384), length=128, batch=128),
    task=ReplacedToken(),
    optim=AdamW(lr=5e-4, schedule=Linear(warmup=10_000), decay=0.01),
    steps=1_000_000,
    save_every=1000,
    eval_every=1000,
    mesh=Mesh(data=1, fsdp=-1),
    precision=Precision(compute='bfloat16'),
    record=Record(eval_batches=16, sample=None),
  )


def _model(depth: int, d: int, heads: int, width: int) -> Model:
  """Return the detector, with the generator as a tower."""
  small = electra.electra(depth, d // 4, heads // 4, width)
  generator = Tower(
    dataclasses.replace(small.embed, vocab=None), small.d_model, small.segments, small.absolute,
    small.norm, heads=small.heads,
  )  # fmt: skip
  detector = electra.electra(depth, d, heads, width)
  score = Classify(1, 'each', Gelu())
  return detector.with_heads(lm=None, classify=score).with_towers(generator=generator)
