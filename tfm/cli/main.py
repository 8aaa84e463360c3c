"""`tfm COMMAND --flags`: run a command, and print a user's mistakes. Next: `cli/train.py`."""

from collections.abc import Sequence
import errno
import importlib
import os
import sys
import traceback
from typing import NamedTuple

from absl import flags as absl_flags

from tfm.cli import flags
from tfm.core import errors
from tfm.core.registry import Table
from tfm.version import __version__


class Command(NamedTuple):
  """A command.

  Attributes:
    module: The module with its `FLAGS` and its `main`, which returns an exit status or None.
    summary: One line for `tfm --help`.
  """

  module: str
  summary: str


COMMANDS = Table(
  'command',
  convert=Command('tfm.cli.convert', 'convert between tfm and Hugging Face checkpoints'),
  data=Command('tfm.cli.data', 'prepare the data of a config, and show its sizes'),
  eval=Command('tfm.cli.eval', 'score a checkpoint on held-out data'),
  export=Command('tfm.cli.export', 'export a model as programs that run with jax alone'),
  generate=Command('tfm.cli.generate', 'continue prompts, chat, or transcribe recordings'),
  plan=Command('tfm.cli.plan', 'plan memory and time of a run, without its hardware'),
  show=Command('tfm.cli.show', 'show a config, its cost, and the available parts and models'),
  tokenizer=Command('tfm.cli.tokenizer', 'train a tokenizer, or show its tokens'),
  train=Command('tfm.cli.train', 'train the experiment of a config, or resume it'),
)

#: Errors of the file system that come from the user's input.
_USER_ERRNOS = frozenset({
  errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EROFS,
  errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG,
})  # fmt: skip
_HELP = ('help', '--help', '-help', '-h', '--help=all', '--helpfull')
_FULL_HELP = ('--help=all', '--helpfull')


def run(argv: Sequence[str] | None = None) -> int:
  """Run `tfm ARGV...` and return its exit status.

  The status is 0 for success, 2 for a user's mistake, 130 for an interrupt, or the command's own.
  """
  words = list(sys.argv[1:] if argv is None else argv)
  try:
    return _dispatch(words) or 0
  except KeyboardInterrupt:
    print('tfm: interrupted', file=sys.stderr)
    return 130
  except BrokenPipeError:  # `tfm show | head`
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
  except (errors.UserError, absl_flags.Error, OSError) as e:
    if isinstance(e, OSError) and e.errno not in _USER_ERRNOS:
      raise
    if {'--debug', '-debug', '--debug=true'} & set(words):
      traceback.print_exception(e)
    print(_report(' '.join(['tfm', *words[:1]]), _message(e)), file=sys.stderr)
    return 2


def _dispatch(words: list[str]) -> int | None:
  if not words or words[0] in _HELP:
    print(_overview())
    return 0
  if words[0] == '--version':
    print(f'tfm {__version__}')
    return 0
  name, *rest = words
  if name.startswith('-'):
    known = ', '.join(COMMANDS)
    raise errors.UserError(f'{name}: no command before it. Expected tfm COMMAND {name}: {known}.')
  module = importlib.import_module(COMMANDS[name].module)
  if set(rest) & set(_HELP[1:]):
    full = bool(set(rest) & set(_FULL_HELP))
    print(flags.usage(module.FLAGS, name, module.__doc__, full))
    return 0
  flags.parse(module.FLAGS, rest)
  # Libraries read absl's global flags, of which a command sets none.
  absl_flags.FLAGS.mark_as_parsed()
  return module.main()


def _overview() -> str:
  width = max(map(len, COMMANDS))
  rows = [f'  {name:<{width}}  {command.summary}' for name, command in sorted(COMMANDS.items())]
  return '\n'.join([
    'usage: tfm COMMAND [--flag=value ...]', '', 'Commands:', *rows, '',
    'Example:',
    '  tfm train --config=quickstart --workdir=runs/1',
    '  tfm generate --checkpoint=runs/1 --prompt="def "',
    '',
    'tfm COMMAND --help lists the flags of a command.',
    'Exit status: 0 success, 2 a mistake in the command or its input (--debug prints',
    'the traceback), 130 interrupted.',
  ])  # fmt: skip


def _message(e: Exception) -> str:
  if isinstance(e, OSError):
    return f'{e.filename}: {e.strerror}' if e.filename else str(e.strerror)
  return str(e)


def _report(command: str, message: str) -> str:
  """Return the text of an error; several mistakes are counted and listed."""
  lines = message.splitlines()
  if len(lines) < 2 or any(line.startswith(' ') for line in lines):
    return f'{command}: {message}'
  return '\n'.join([f'{command}: {len(lines)} mistakes', *(f'  {line}' for line in lines)])
