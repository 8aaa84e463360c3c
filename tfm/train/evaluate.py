"""The loss over a whole split, each token once."""

from collections.abc import Callable, Iterator
import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tfm.core import errors
from tfm.data.base import Data
from tfm.data.corpus import Corpus
from tfm.data.given import Given
from tfm.data.progress import Progress
from tfm.data.tokenizer import Bpe
from tfm.model import transformer
from tfm.train import shard
from tfm.train.experiment import Experiment
from tfm.train.step import Batch, inputs_of

#: Batches whose sums may be under way on the devices at once.
_AHEAD = 4

Sums = dict[str, jax.Array]


def make_eval(x: Experiment, byte_lengths: np.ndarray | None) -> Callable[[Any, Batch], Sums]:
  """`(params, batch) -> sums` of `weight`, `nll` (nats) and `correct`, and of the `bytes` of the labels if known."""
  lengths = None if byte_lengths is None else np.asarray(byte_lengths, np.int32)

  def sums(params: Any, batch: Batch) -> Sums:
    out = transformer.apply(x.model, params, run=x.run(), **inputs_of(batch))
    _, weight, found = x.task.loss(out, batch)
    total = {'weight': weight, 'nll': found['nll'], 'correct': found['correct']}
    if lengths is not None:
      bytes_BT = jnp.take(jnp.asarray(lengths), batch['labels'], axis=0)
      total['bytes'] = jnp.sum(jnp.where(batch['weights'] > 0, bytes_BT, 0))
    return total

  return sums


def evaluate(sums: Callable[[Any, Batch], Sums], params: Any, batches: Iterator[Batch]) -> dict[str, float | None]:
  """`val_loss_nats` and `val_accuracy` a predicted token, and `val_bits_per_byte` of the text predicted, or None."""
  total: dict[str, float] = {}
  under_way: list[Sums] = []

  def add(found: Sums) -> None:
    for name, value in jax.device_get(found).items():
      total[name] = total.get(name, 0.0) + float(value)

  for batch in batches:
    under_way.append(sums(params, batch))
    if len(under_way) > _AHEAD:
      add(under_way.pop(0))
  for found in under_way:
    add(found)
  weight = total.get('weight', 0.0)
  if not weight:
    raise errors.UserError('eval: nothing in the split is predicted. Wanted at least one row with two tokens.')
  size = total.get('bytes', 0.0)
  return {
    'val_loss_nats': total['nll'] / weight,
    'val_accuracy': total['correct'] / weight,
    'val_bits_per_byte': total['nll'] / math.log(2) / size if size else None,
  }


def batches(
  x: Experiment, corpus: Corpus, sharding: jax.sharding.NamedSharding, split: str = 'val', most: int | None = None
) -> Iterator[Batch]:
  """The rows of `split` once, in order, on the devices; or `most` batches, spread evenly over them."""
  batch = x.data.batch
  mine = shard.my_rows(sharding, batch)
  n, every = count(x, corpus, split, most)
  for raw in itertools.islice(corpus.eval_batches(split, batch, mine, every), n):
    yield shard.put(x.task.features(raw, corpus.tokenizer, x.data.isolate), sharding, batch, mine)


def count(x: Experiment, corpus: Corpus, split: str = 'val', most: int | None = None) -> tuple[int, int]:
  """(how many batches of `split` are scored, every how manieth of all)."""
  n = corpus.eval_steps(split, x.data.batch)
  every = 1 if most is None else max(1, n // most)
  return min(-(-n // every), n if most is None else most), every


def evaluate_checkpoint(
  path: str | Path,
  split: str = 'val',
  change: Callable[[Experiment], Experiment] = lambda x: x,
  most: int | None = None,
) -> dict[str, Any]:
  """The evaluation of a checkpoint on a split of its experiment's data, once `change` has had a say about that.

  Other text is read with the tokenizer of the checkpoint.

  Keys: `step`, `val_loss_nats`, `val_accuracy`, `val_bits_per_byte` (None if bytes are not known).

  Raises: UserError if there is no checkpoint, or the text is not to be read with its tokenizer.
  """
  from tfm.train import checkpoint  # here, as Orbax takes long to import and training has its own way to it

  loaded = checkpoint.load(path)
  x = loaded.experiment if change is None else change(loaded.experiment)
  if x.model != loaded.spec:
    raise errors.UserError(f'eval: {path} holds another model than the one asked for. Wanted no change of model.')
  if loaded.tokenizer is None:
    raise errors.UserError(f'eval: {path} has no tokenizer to read text with. Wanted a checkpoint with one.')
  data, own = x.data, loaded.experiment.data
  # A source that is named anew, as data=text(files=...), comes with the tokenizer that a source has by itself.
  if data.tokenizer not in (own.tokenizer, Bpe()):
    raise errors.UserError(f'eval: {path} reads text with its own tokenizer. Wanted no change of data.tokenizer.')
  # Only of the text it was trained on are there tokens already; and that may have changed since, or be gone.
  corpus = x.task.open(data) if _source(data) == _source(own) else None
  if corpus is None or not corpus.tokenizer.same(loaded.tokenizer):
    corpus = x.task.open(dataclasses.replace(data, tokenizer=Given(loaded.tokenizer)))
  if not corpus.tokenizer.same(loaded.tokenizer):
    raise errors.UserError(
      f'eval: {path} was trained with another vocabulary ({loaded.tokenizer.size} tokens, specials '
      f'{", ".join(loaded.tokenizer.specials) or "none"}) than the data wants ({corpus.tokenizer.size}, '
      f'{", ".join(corpus.tokenizer.specials) or "none"}). Wanted its own text, or one document.'
    )
  sharding = shard.rows(shard.make_mesh(type(x.mesh)(), jax.devices()[:1]), x.mesh.table())
  sums = jax.jit(make_eval(x, corpus.byte_lengths))
  with Progress('scoring', count(x, corpus, split, most)[0], of_bytes=False) as progress:
    found = evaluate(sums, loaded.params, progress.over(batches(x, corpus, sharding, split, most)))
  return {'step': loaded.step, **found}


def _source(data: Data) -> Data:
  """Which text it is and how it is cut into tokens, whatever the rows and batches made of them."""
  return dataclasses.replace(data, length=1, batch=1, isolate=False, cache='')
