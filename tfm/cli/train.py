"""Train the experiment of a config, or resume it from its last checkpoint.

Examples:
  tfm train --config=quickstart --workdir=runs/1
  tfm train --config=shakespeare_char --config.data.files=a.txt --workdir=runs/2
  tfm train --config=pretrain:llama3.2-1b --config.model..relative=alibi \\
    --config.data='text(files=a.txt)' --config.mesh.fsdp=8 --workdir=runs/3

Exit status: 0 trained, 1 too many bad steps, 2 a mistake or a workdir in use,
69 the workdir was taken over or removed, 70 no progress or a lost process,
74 the disk is full or fails, 75 SIGTERM and saved, 130 Ctrl-C and saved."""

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
CONFIG = command.define_config(FLAGS, needed=True)
WORKDIR = flags.DEFINE_string(
  'workdir', None, 'the folder of checkpoints and metrics', required=True, flag_values=FLAGS
)
EXECUTABLE = flags.DEFINE_string(
  'executable', None, 'a compiled step of tfm plan --save', flag_values=FLAGS
)
COMPILE_CACHE = flags.DEFINE_boolean(
  'compile_cache',
  True,
  'reuse compiled programs of earlier runs. They are in $TFM_CACHE/compiled or '
  '~/.cache/tfm/compiled',
  flag_values=FLAGS,
)


def main() -> int:
  """Train, and return the exit status."""
  from tfm.train import compile_cache, preflight
  from tfm.train.loop import train
  from tfm.train.recover import Stopped

  if COMPILE_CACHE.value:
    compile_cache.enable()
  experiment = CONFIG.resolve(check=preflight.mistakes).config
  try:
    train(
      experiment,
      WORKDIR.value,
      sample=write,
      warm_start=warm_start,
      read_model=read_model,
      complete=complete,
      executable_file=EXECUTABLE.value,
    )
  except Stopped as e:
    if FLAGS.debug:
      traceback.print_exception(e)
    print(f'tfm train: {e}', file=sys.stderr)
    return e.status
  return 0


def warm_start(
  experiment: 'Experiment', vocabulary: 'Vocabulary | None', where: Any, say: Callable[[str], None]
) -> tuple[Any, Mapping[str, bytes]]:
  """Return the parameters of `init_from` and the files to keep (`hub.warm_start`)."""
  from tfm import hub

  return hub.warm_start(experiment, vocabulary, where, say)


def read_model(folder: str, dtype: Any = None, where: Any = None) -> Any:
  """Return a further model of a task (`hub.read_model`)."""
  from tfm import hub

  return hub.read_model(folder, dtype, where)


def complete(
  x: 'Experiment',
  params: Any,
  vocabulary: 'Vocabulary',
  prompts: list[list[int]],
  key: Any,
  **options: Any,
) -> list[list[int]]:
  """Return new tokens of each prompt, sampled from the parameters in place."""
  from tfm.generate import generate
  from tfm.parts.context import Run

  # With loop='scan', decoding reads the parameters of training and copies none.
  run = Run(x.precision, loop='scan', attend=x.attend, quantize=x.quantize)
  return generate(x.model, params, prompts, tokenizer=vocabulary, key=key, run=run, **options)


def write(model: 'Model', params: Any, vocabulary: 'Vocabulary', sample: 'Sample') -> str:
  """Return the text sample of an evaluation: the prompt and its continuation."""
  from tfm.generate import generate
  from tfm.parts.context import Run

  prompt, tokens = vocabulary.encode(sample.prompt), sample.tokens
  if model.max_positions is not None:
    tokens = max(1, min(tokens, model.max_positions - len(prompt)))
  options: dict[str, Any] = {'max_new_tokens': tokens, 'temperature': sample.temperature}
  # loop='scan' compiles one layer for all; a short sample would not repay unrolling.
  ids = generate(
    model, params, [prompt.tolist()], tokenizer=vocabulary, run=Run(loop='scan'), **options
  )[0]
  return sample.prompt + vocabulary.decode(ids)
