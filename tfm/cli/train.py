"""Trains the experiment of a config. The same command goes on where an earlier one of that workdir
has stopped.

  tfm train --config=shakespeare_char --config.data.files=input.txt --workdir=runs/1
  tfm train --config=pretrain:llama3-8b --config.model..relative=alibi --workdir=runs/2

Exit status: 0 trained, 1 the loss is not finite, 2 a mistake in the command or a workdir in use, 69
the workdir was taken over by another run, 74 the disk is full, 75 SIGTERM: saved, the same command
continues."""

from collections.abc import Callable, Mapping
import sys
import traceback
from typing import TYPE_CHECKING, Any

from absl import flags

from tfm.cli import flags as command

if TYPE_CHECKING:
  from tfm.data.tokenizer import Vocabulary
  from tfm.model.spec import Model
  from tfm.train.experiment import Experiment, Sample

FLAGS = command.new()
CONFIG = command.define_config(FLAGS)
WORKDIR = flags.DEFINE_string(
  'workdir', None, 'the directory of checkpoints and metrics.', required=True, flag_values=FLAGS
)


def main() -> int:
  """The exit status of the training."""
  experiment = CONFIG.resolve().config
  from tfm.train.loop import train
  from tfm.train.recover import Stopped

  try:
    train(experiment, WORKDIR.value, sample=write, warm_start=warm_start)
  except Stopped as e:
    if FLAGS.debug:
      traceback.print_exception(e)
    print(f'tfm train: {e}', file=sys.stderr)
    return e.status
  return 0


def warm_start(
  experiment: 'Experiment', vocabulary: 'Vocabulary | None', where: Any, say: Callable[[str], None]
) -> tuple[Any, Mapping[str, bytes]]:
  """Return the parameters that the experiment starts from, and the files that its checkpoints keep."""
  from tfm import hub

  return hub.warm_start(experiment, vocabulary, where, say)


def write(model: 'Model', params: Any, vocabulary: 'Vocabulary', sample: 'Sample') -> str:
  """The prompt and what the model says after it, as far as its positions go."""
  from tfm.generate import generate
  from tfm.parts.context import Run

  prompt, tokens = vocabulary.encode(sample.prompt), sample.tokens
  if model.max_positions is not None:
    tokens = max(1, min(tokens, model.max_positions - len(prompt)))
  options: dict[str, Any] = {'max_new_tokens': tokens, 'temperature': sample.temperature}
  # Scanned: a sample is short, and compiling layer by layer takes longer the deeper the model is.
  ids = generate(
    model, params, [prompt.tolist()], tokenizer=vocabulary, run=Run(loop='scan'), **options
  )[0]
  return sample.prompt + vocabulary.decode(ids)
