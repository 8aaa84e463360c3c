"""Score a model on held-out data, or by the choices that it prefers.

Examples:
  tfm eval --checkpoint=runs/1
  tfm eval --checkpoint=runs/1 --config.data.batch=64 --batches=10
  tfm eval --checkpoint=Llama-3.2-1B --split=train \\
    --config.data='text(files=a.txt, val_tail=0)'
  tfm eval --checkpoint=runs/translate --metrics=bleu,chrf --beams=4
  tfm eval --checkpoint=Llama-3.2-1B --choices=questions.jsonl --shots=5

--config.PATH=VALUE changes the experiment, but not its model or tokenizer."""

import json
from typing import Any

from absl import flags

from tfm.cli import flags as command
from tfm.core import errors

FLAGS = command.new()
CHECKPOINT = command.define_checkpoint(FLAGS)
SPLIT = flags.DEFINE_string('split', 'val', 'the split: val or train', flag_values=FLAGS)
BATCHES = flags.DEFINE_integer(
  'batches',
  None,
  'only this many batches, spread over the split',
  lower_bound=1,
  flag_values=FLAGS,
)
INTERVALS = flags.DEFINE_bool(
  'intervals', False, 'add 95% intervals over sequences', flag_values=FLAGS
)
JSON = flags.DEFINE_bool('json', False, 'print one JSON object', flag_values=FLAGS)
FLAGS.group('Generated texts')
METRICS = flags.DEFINE_list(
  'metrics', [], 'bleu, chrf, exact_match, f1, rouge, wer, per, cer',
  flag_values=FLAGS,
)  # fmt: skip
BEAMS = flags.DEFINE_integer('beams', None, 'beam search with this many beams', flag_values=FLAGS)
LENGTH_PENALTY = flags.DEFINE_float(
  'length_penalty', None, 'above 0 prefers longer texts', flag_values=FLAGS
)
NEW_TOKENS = flags.DEFINE_integer(
  'max_new_tokens', None, 'at most this many new tokens', flag_values=FLAGS
)
TEMPERATURE = flags.DEFINE_float(
  'temperature', None, '0 is greedy; above 1 is more random', flag_values=FLAGS
)
MERGE = flags.DEFINE_bool(
  'merge_sources', False, 'one example of all pairs with the same source', flag_values=FLAGS
)
LIMIT = flags.DEFINE_integer(
  'limit', None, 'only this many examples, spread over the split', lower_bound=1, flag_values=FLAGS
)
OUTPUTS = flags.DEFINE_string(
  'outputs', '', 'write sources, outputs and references to this file', flag_values=FLAGS
)
FLAGS.group('Choices')
CHOICES = flags.DEFINE_string(
  'choices', '', 'JSON lines of question, choices and answer', flag_values=FLAGS
)
NORMALISE = flags.DEFINE_string(
  'normalise', 'none', 'divide log-probabilities by: none, tokens, bytes', flag_values=FLAGS
)
SHOTS = flags.DEFINE_integer(
  'shots', 0, 'worked examples before each question', lower_bound=0, flag_values=FLAGS
)
SHOTS_FROM = flags.DEFINE_string(
  'shots_from', '', 'their file; default: the other questions', flag_values=FLAGS
)
FORM = flags.DEFINE_string('form', '', "the text of an example: 'Q: {}\\nA: {}'", flag_values=FLAGS)
VOTE = flags.DEFINE_integer(
  'vote', None, 'answer by the majority of this many samples', lower_bound=1, flag_values=FLAGS
)
MARKER = flags.DEFINE_string(
  'answer_after', '', '--vote: the text before an answer',
  flag_values=FLAGS,
)  # fmt: skip
SEED = flags.DEFINE_integer('seed', 0, 'seeds samples, shots and intervals', flag_values=FLAGS)
FLAGS.group('Loading', hidden=True)
ADAPTER = command.define_adapter(FLAGS)
IGNORED = command.define_ignored(FLAGS)
CONFIG = command.define_config(FLAGS)


def main() -> None:
  """Print the metrics."""
  if CONFIG.file:
    raise errors.UserError(
      f'--config: is {CONFIG.file!r}, but checkpoints have configs. Expected --config.PATH=VALUE.'
    )
  if METRICS.value and CHOICES.value:
    raise errors.UserError('--metrics: is set together with --choices. Expected one of them.')
  from tfm.hub import load

  read = lambda path: load(path, ignore=IGNORED.value, adapter=ADAPTER.value)
  change = lambda experiment: CONFIG.resolve(experiment).config
  if METRICS.value or CHOICES.value:
    _print_scores(_choices(read) if CHOICES.value else _outputs(read, change))
    return
  if INTERVALS.value:
    from tfm.evaluate import evaluate_losses

    path, most = CHECKPOINT.value, BATCHES.value
    _print_scores(evaluate_losses(path, SPLIT.value, change, most, read, SEED.value), 4)
    return
  from tfm.cli.train import complete
  from tfm.hub import read_model
  from tfm.train.evaluate import evaluate_checkpoint

  scores = evaluate_checkpoint(
    CHECKPOINT.value,
    SPLIT.value,
    change,
    BATCHES.value,
    read,
    read_model=read_model,
    complete=complete,
  )
  if JSON.value:
    print(json.dumps(scores))
    return
  for name, value in scores.items():
    text = 'unknown' if value is None else str(value)
    print(f'{name:>20}  {f"{value:.4f}" if isinstance(value, float) else text}')


def _outputs(read: Any, change: Any) -> dict[str, Any]:
  """Return the metrics of generated targets."""
  from tfm import evaluate
  from tfm.train.evaluate import open_checkpoint

  loaded, x, _ = open_checkpoint(CHECKPOINT.value, change, read)
  chosen = evaluate.Outputs(SPLIT.value, MERGE.value, LIMIT.value, OUTPUTS.value)
  return evaluate.evaluate_outputs(
    loaded, x, METRICS.value, chosen, seed=SEED.value, **_generation()
  )


def _choices(read: Any) -> dict[str, Any]:
  """Return the accuracy on questions with choices."""
  from tfm import evaluate
  from tfm.evaluate import choices

  questions = choices.read(CHOICES.value)[: LIMIT.value]
  pool = tuple(choices.read(SHOTS_FROM.value)) if SHOTS_FROM.value else ()
  shots = evaluate.FewShot(SHOTS.value, pool, FORM.value.replace('\\n', '\n'), SEED.value)
  loaded = read(CHECKPOINT.value)
  if VOTE.value is None:
    return evaluate.evaluate_choices(loaded, questions, shots, NORMALISE.value)
  return evaluate.evaluate_votes(
    loaded, questions, VOTE.value, shots, marker=MARKER.value, **_generation()
  )


def _generation() -> dict[str, Any]:
  """Return the options of generation that flags set."""
  given = (BEAMS, LENGTH_PENALTY, NEW_TOKENS, TEMPERATURE)
  return {flag.name: flag.value for flag in given if flag.value is not None}


def _print_scores(scores: dict[str, Any], digits: int = 2) -> None:
  if JSON.value:
    print(json.dumps({name: score._asdict() for name, score in scores.items()}))
    return
  for name, score in scores.items():
    note = f'  {score.note}' if score.note else ''
    value, low, high = (f'{x:.{digits}f}' for x in score[:3])
    print(f'{name:>20}  {value}  [{low}, {high}]{note}')
