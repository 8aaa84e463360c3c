"""Score a model on held-out data, with the metrics of its task.

Examples:
  tfm eval --checkpoint=runs/1
  tfm eval --checkpoint=runs/1 --config.data.batch=64 --batches=10
  tfm eval --checkpoint=Llama-3.2-1B --split=train \\
    --config.data='text(files=a.txt, val_tail=0)'

--config.PATH=VALUE changes the experiment, but not its model or tokenizer."""

import json

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
JSON = flags.DEFINE_bool('json', False, 'print one JSON object', flag_values=FLAGS)
ADAPTER = command.define_adapter(FLAGS)
IGNORED = command.define_ignored(FLAGS)
CONFIG = command.define_config(FLAGS)


def main() -> None:
  """Print the metrics."""
  if CONFIG.file:
    raise errors.UserError(
      f'--config: is {CONFIG.file!r}, but checkpoints have configs. Expected --config.PATH=VALUE.'
    )
  from tfm.hub import load
  from tfm.train.evaluate import evaluate_checkpoint

  read = lambda path: load(path, ignore=IGNORED.value, adapter=ADAPTER.value)
  change = lambda experiment: CONFIG.resolve(experiment).config
  scores = evaluate_checkpoint(CHECKPOINT.value, SPLIT.value, change, BATCHES.value, read)
  if JSON.value:
    print(json.dumps(scores))
    return
  for name, value in scores.items():
    text = 'unknown' if value is None else str(value)
    print(f'{name:>20}  {f"{value:.4f}" if isinstance(value, float) else text}')
