"""`tfm COMMAND --flags`: finds the command, runs it, and says a user's mistake in one message.
Next: `cli/train.py`.
"""

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
  """A command: the module that holds its `FLAGS` and its `main() -> exit status or None`, and what
  it does.
  """

  module: str
  summary: str


COMMANDS = Table(
  'command',
  convert=Command(
    'tfm.cli.convert',
    'write a published checkpoint as one of ours, or one of ours for transformers',
  ),
  eval=Command('tfm.cli.eval', 'score a checkpoint on held-out text'),
  generate=Command('tfm.cli.generate', 'go on from a prompt with the model of a checkpoint'),
  show=Command(
    'tfm.cli.show', 'show a config, its model and its cost; the parts and models there are'
  ),
  train=Command('tfm.cli.train', 'train the experiment of a config, or go on with it'),
)

#: What a file system refuses because of what the user asked for.
_REFUSED = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EROFS,
            errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG)  # fmt: skip
_HELP = ('help', '--help', '-help', '-h')


def run(argv: Sequence[str] | None = None) -> int:
  """The exit status of `tfm ARGV...`: 0 done, 2 a mistake of the user, 130 interrupted, or what the
  command says.
  """
  words = list(sys.argv[1:] if argv is None else argv)
  try:
    return _dispatch(words) or 0
  except KeyboardInterrupt:
    print('tfm: interrupted', file=sys.stderr)
    return 130
  except BrokenPipeError:  # `tfm show | head`: the reader has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
  except (errors.UserError, absl_flags.Error, OSError) as e:
    if isinstance(e, OSError) and e.errno not in _REFUSED:
      raise
    if {'--debug', '-debug', '--debug=true'} & set(words):
      traceback.print_exception(e)
    print(f'{" ".join(["tfm", *words[:1]])}: {_message(e)}', file=sys.stderr)
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
    raise errors.UserError(
      f'{name}: no command is named before it. Expected tfm COMMAND {name}: {", ".join(COMMANDS)}.'
    )
  module = importlib.import_module(COMMANDS[name].module)
  if set(rest) & set(_HELP[1:]):
    print(flags.usage(module.FLAGS, name, module.__doc__))
    return 0
  flags.parse(module.FLAGS, rest)
  # Libraries ask the flags of the whole process, of which a command sets none.
  absl_flags.FLAGS.mark_as_parsed()
  return module.main()


def _overview() -> str:
  width = max(map(len, COMMANDS))
  rows = [f'  {name:<{width}}  {command.summary}' for name, command in sorted(COMMANDS.items())]
  return '\n'.join([
    'usage: tfm COMMAND [--flag=value ...]', '', *rows, '',
    'tfm COMMAND --help lists the flags of a command. Exit status: 0 done, 2 a mistake in the '
    'command or its input',
    '(--debug shows where it was found), 130 interrupted.',
  ])  # fmt: skip


def _message(e: Exception) -> str:
  if isinstance(e, OSError):
    return f'{e.filename}: {e.strerror}' if e.filename else str(e.strerror)
  return str(e)
