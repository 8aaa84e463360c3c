"""The smallest experiment. As a program: `python -m tests.train.tiny WORKDIR [JSON of fields]`."""

from collections.abc import Callable
import dataclasses
import json
import os
from pathlib import Path
import signal
import sys
import time

from tfm.core import config
from tfm.data.text import Text
from tfm.data.tokenizer import Byte
from tfm.model.spec import Block, Model, Segment
from tfm.optim import AdamW
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu
from tfm.parts.mixer import Attention
from tfm.train import Experiment, Record

WORDS = 'to be or not to be, that is the question whether it is nobler in the mind '


def experiment(folder: Path, **changes) -> Experiment:
  """Byte-level, one layer of width 16, six steps of 8 rows of 16."""
  folder = Path(folder)
  text = folder / 'words.txt'
  if not text.exists():
    folder.mkdir(parents=True, exist_ok=True)
    text.with_suffix('.new').write_text(WORDS * 40)
    text.with_suffix('.new').replace(text)
  block = Block(Attention(heads=4, kv_heads=2), Glu(d_ff=32), dropout=0.1)
  x = Experiment(
    model=Model(embed=Tokens(256), d_model=16, segments=(Segment((block,), 2),)),
    data=Text(tokenizer=Byte(), files=str(text), length=16, batch=8, cache=str(folder / 'cache')),
    optim=AdamW(lr=1e-2),
    steps=6,
    save_every=2,
    eval_every=3,
    record=Record(log_every=1),
  )
  for path, text_ in changes.items():
    x = config.override(x, path.replace('__', '.'), str(text_))
  return dataclasses.replace(x)


def main(experiment: Callable[..., Experiment] = experiment) -> int:
  from tfm.train import loop, recover

  folder, workdir, fields = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
  kill = fields.pop('kill', None)
  if kill is not None:
    _kill_at(*kill)
  if hang := fields.pop('hang', None):
    _before_batch(*hang, lambda: time.sleep(1000))
  if end := fields.pop('end', None):
    _before_batch(*end, lambda: os._exit(9))
  try:
    loop.train(experiment(folder, **fields), workdir, devices=None)
  except recover.Stopped as stopped:
    print(stopped, file=sys.stderr)
    return stopped.status
  return 0


def _kill_at(step: int, name: str) -> None:
  """Sends this process signals once it has reached a step."""
  from tfm.train import recover

  was = recover.Preemption.at

  def at(self, now):
    if now == step:
      for each in name.split():
        os.kill(os.getpid(), getattr(signal, each))
        time.sleep(0.2)
    return was(self, now)

  recover.Preemption.at = at


def _before_batch(process: int, step: int, action: Callable[[], None]) -> None:
  """Makes a process act before a batch."""
  import jax

  from tfm.data.corpus import Corpus

  was = Corpus.batch

  def batch(self, split, seed, now, examples=None):
    if now == step and jax.process_index() == process:
      action()
    return was(self, split, seed, now, examples)

  Corpus.batch = batch


if __name__ == '__main__':
  sys.exit(main())
