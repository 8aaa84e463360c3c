"""Trains the experiment of a config. The same command goes on where an earlier one of that workdir has stopped.

tfm train --config=shakespeare_char --config.data.files=input.txt --workdir=runs/1
tfm train --config=pretrain:llama3-8b --config.model..relative=alibi --workdir=runs/2
"""

from absl import flags

from tfm.cli import flags as command

FLAGS = command.new()
CONFIG = command.define_config(FLAGS)
WORKDIR = flags.DEFINE_string(
  'workdir', None, 'the directory of checkpoints and metrics.', required=True, flag_values=FLAGS
)


def main() -> int | None:
  """The exit status of the training."""
  experiment = CONFIG.resolve().config
  from tfm.train import loop

  return loop.train(experiment, WORKDIR.value)
