"""Classify pieces of source code by their package of the Python standard library.

  tfm train --config=classify --workdir=runs/classify
  tfm train --config=classify:FOLDER --workdir=runs/minilm

The first command trains an encoder from scratch in minutes on two CPU cores. The second starts from
a published encoder, such as MiniLM. From scratch the accuracy on held-out pieces of Python 3.11 is
52% (chance: 10%). Then the model overfits, since there is little text.
"""

import dataclasses
import sysconfig

from tfm import hub
from tfm.data import Folders
from tfm.data.tokenizer import Bpe, File
from tfm.model.spec import Block, Model, Segment
from tfm.optim import AdamW
from tfm.optim.schedule import Cosine
from tfm.parts.act import Gelu, Tanh
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Mlp
from tfm.parts.head import classify
from tfm.parts.mask import Mask
from tfm.parts.mixer import Attention
from tfm.parts.norm import LayerNorm
from tfm.parts.relative import RoPE
from tfm.tasks import Classify
from tfm.train import Experiment, Record

CLASSES = (
  'asyncio',
  'ctypes',
  'email',
  'http',
  'importlib',
  'json',
  'logging',
  'multiprocessing',
  'unittest',
  'xml',
)


def get_config(folder: str = '') -> Experiment:
  """Return 300 steps of 32 sequences of 128 tokens; a published encoder gets a new classifier."""
  data = Folders(
    root=sysconfig.get_path('stdlib'),
    classes=CLASSES,
    pattern='**/[a-z_]*.py',
    tokenizer=Bpe(4096),
    length=128,
    batch=32,
  )
  optim = AdamW(lr=1e-3, schedule=Cosine(warmup=30), decay=0.05)
  if folder:
    data = dataclasses.replace(data, tokenizer=File(folder))
    optim = dataclasses.replace(optim, lr=1e-4)
  return Experiment(
    model=_model(folder), data=data, task=Classify(), optim=optim, steps=300, save_every=100,
    eval_every=100,
    record=Record(sample=None), init_from=folder,
  )  # fmt: skip


def _model(folder: str) -> Model:
  classifier = classify.Classify(len(CLASSES), 'first', Tanh(), dropout=0.1)
  if folder:
    body = hub.read_config(folder).spec
    # Scores of the last token's hidden state, as published classifiers of decoders have them.
    decoder = classify.Classify(len(CLASSES), 'last', bias=False)
    return body.with_heads(lm=None, classify=decoder if body.causal else classifier)
  norm = LayerNorm(1e-6)
  block = Block(Attention(4, mask=Mask(), relative=RoPE()), Mlp(512, Gelu()), norm, dropout=0.1)
  return Model(
    Tokens(4104), 128, (Segment((block,), 3),), heads={'classify': classifier}, norm=norm
  )
