"""Generate the target of each source of a split, and compare it with the references."""

from collections.abc import Iterator, Sequence
import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.core.errors import UserError
from tfm.data.pairs import Pairs
from tfm.data.progress import Progress
from tfm.evaluate.bootstrap import Score, score
from tfm.evaluate.metrics import TABLE
from tfm.generate.options import several
from tfm.tasks import Seq2Seq
from tfm.train.experiment import Experiment


class Example(NamedTuple):
  """A source and its right targets."""

  source: str
  references: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Outputs:
  """The choice of examples, and where their outputs are written.

  Attributes:
    split: Name of the split.
    merge_sources: Make one example of all pairs with the same source. Its references are all of
      their targets. Otherwise each pair is an example.
    limit: The most examples, spread evenly over the split. None takes all.
    file: A file for source, output and references of each example, as JSON lines. Empty for none.
  """

  split: str = 'val'
  merge_sources: bool = False
  limit: int | None = None
  file: str = ''


def evaluate_outputs(
  loaded: Any, x: Experiment, metrics: Sequence[str], outputs: Outputs = Outputs(), **options: Any
) -> dict[str, Score]:
  """Return metrics of the texts that a model writes for the sources of a split.

  One process evaluates every example once. Decoding is greedy by default.

  Args:
    loaded: The model, from `tfm.load`.
    x: The experiment, with `data=pairs` and `task=seq2seq`.
    metrics: Names of `tfm.evaluate.metrics.TABLE`.
    outputs: The examples, and where outputs are written.
    **options: Options of `tfm.generate`, and `seed`.

  Returns:
    The scores by name.

  Raises:
    UserError: The data are not pairs, the split is empty, or an option is invalid.
  """
  for name in metrics:
    TABLE[name]  # an unknown name is an error before anything is generated
  if not isinstance(x.data, Pairs) or not isinstance(x.task, Seq2Seq):
    raise UserError(
      '--metrics: needs sources and targets. Expected --config.data=pairs(files=...) and '
      '--config.task=seq2seq.'
    )
  seed = options.pop('seed', 0)
  chosen = examples(x.data, outputs)
  texts = generate_all(loaded, x, [example.source for example in chosen], seed=seed, **options)
  if outputs.file:
    rows = zip(chosen, texts, strict=True)
    lines = (json.dumps({**e._asdict(), 'output': t}, ensure_ascii=False) for e, t in rows)
    Path(outputs.file).expanduser().write_text(''.join(f'{line}\n' for line in lines), 'utf-8')
  return score(metrics, texts, [example.references for example in chosen], seed)


def examples(data: Pairs, outputs: Outputs) -> list[Example]:
  """Return the examples of a split in the order of the files."""
  pairs = [Example(pair.source, (pair.target,)) for pair in data.pairs(outputs.split)]
  if outputs.merge_sources:
    merged: dict[str, tuple[str, ...]] = {}
    for source, references in pairs:
      merged[source] = merged.get(source, ()) + references
    pairs = [Example(*item) for item in merged.items()]
  if not pairs:
    raise UserError(f'--split: {outputs.split} has no pairs. Expected another split.')
  if outputs.limit is None or outputs.limit >= len(pairs):
    return pairs
  return [pairs[i * len(pairs) // outputs.limit] for i in range(outputs.limit)]


def generate_all(
  loaded: Any, x: Experiment, sources: Sequence[str], *, seed: int = 0, **options: Any
) -> list[str]:
  """Return the text that a model writes for each source, in batches of `data.batch`.

  The output of a source does not depend on the other sources.

  Args:
    loaded: The model.
    x: The experiment.
    sources: Texts with their prefix.
    seed: The seed of sampling.
    **options: Options of `tfm.generate`. Defaults to greedy decoding of up to `target_length`
      tokens.

  Returns:
    The texts, in the order of the sources.
  """
  data, task, vocabulary = x.data, x.task, loaded.tokenizer
  assert isinstance(data, Pairs)
  assert isinstance(task, Seq2Seq)
  vocabulary = vocabulary.with_specials(task.specials(data.length))
  options = {'temperature': 0.0, 'max_new_tokens': data.windows[1], **options}
  if (start := task.decoder_start(vocabulary)) is not None:
    options.setdefault('decoder_start', start)
  options.setdefault('eos', vocabulary.special('eos'))
  prompts = [task.prompt(vocabulary, source, data.length) for source in sources]
  model, key, ends = loaded.prepared(), jax.random.key(seed), several(options['eos'])
  texts = [''] * len(sources)
  with Progress('generating', len(sources), of_bytes=False) as progress:
    for rows in batches([len(prompt) for prompt in prompts], data.batch):
      keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.array(rows))
      ids = model.generate([prompts[row] for row in rows], key=keys, **options)
      for row, tokens in zip(rows, ids, strict=True):
        texts[row] = vocabulary.decode([token for token in tokens if token not in ends])
      progress.advance(len(set(rows)))
  return texts


def batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
  """Yield batches of indices, sorted by length so that few tokens are padding.

  Args:
    lengths: The length of each sequence.
    size: The size of a batch. The last one is filled up with its last index.

  Yields:
    Indices. Each occurs in one batch.
  """
  order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
  for start in range(0, len(order), size):
    rows = order[start : start + size]
    yield rows + rows[-1:] * (min(size, len(order)) - len(rows))
