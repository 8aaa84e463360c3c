"""The flags of one command, on absl: `--config=FILE[:ARG]` with any number of
`--config.PATH=VALUE`, and the rest.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import re
import textwrap
from typing import Any

from absl import flags

from tfm.cli import configfile
from tfm.core import config, errors


class _ConfigFlag(flags.Flag):
  """A flag with settings below its name: `--config.model.d_model=64`."""

  settings: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Config:
  """The config that a command is given: a file and the settings of its flags."""

  values: flags.FlagValues
  name: str

  @property
  def file(self) -> str | None:
    """What `--config` was set to."""
    return self.values[self.name].value

  @property
  def settings(self) -> tuple[tuple[str, str], ...]:
    """`(path, text)` of every `--config.PATH=VALUE`, in order."""
    return _configs(self.values)[self.name].settings

  def resolve(self, base: Any = None) -> config.Resolved:
    """The config of the file, or `base` where no file is wanted, with every setting applied and all
    of it validated.
    """
    if base is None:
      base = configfile.load(self.file or '', f'--{self.name}')
    resolved = config.resolve(base, self.settings, f'--{self.name}')
    config.validate(resolved.config)
    return resolved


def new() -> flags.FlagValues:
  """The flags that every command has; define more with `flags.DEFINE_...(..., flag_values=it)`."""
  values = flags.FlagValues()
  values.set_gnu_getopt(True)  # or a stray word would hide the flags after it
  flags.DEFINE_bool(
    'debug', False, 'Show where a mistake was found, as a Python traceback.', flag_values=values
  )
  return values


def define_config(values: flags.FlagValues, name: str = 'config') -> Config:
  """Defines `--NAME=FILE[:ARG]` and `--NAME.PATH=VALUE`."""
  text = (
    'A Python file with get_config(), or the name of a config that comes with tfm; ARG is the '
    'argument of get_config. '
    f'--{name}.PATH=VALUE sets a field: names joined by dots, an index or * over a tuple, .. to '
    f'any depth.'
  )
  parser: flags.ArgumentParser = flags.ArgumentParser()
  flags.DEFINE_flag(
    _ConfigFlag(parser, flags.ArgumentSerializer(), name, None, text), flag_values=values
  )
  return Config(values, name)


def define_ignored(values: flags.FlagValues) -> flags.FlagHolder[list[str]]:
  """Define `--ignore_fields=NAME,NAME`, the `ignore` of `tfm.load`."""
  text = (
    'unknown fields of a published config.json to leave out, which change nothing that is computed.'
  )
  return flags.DEFINE_list('ignore_fields', [], text, flag_values=values)


def define_adapter(values: flags.FlagValues) -> flags.FlagHolder[str | None]:
  """Define `--adapter=FOLDER`, the `adapter` of `tfm.load`."""
  text = 'the folder of a PEFT LoRA adapter that was trained on the published model.'
  return flags.DEFINE_string('adapter', None, text, flag_values=values)


def parse(values: flags.FlagValues, words: Sequence[str]) -> None:
  """Sets `values` from the words after the command, and nothing else: what was set before is
  forgotten.

  Raises: UserError.
  """
  for name in values:
    values[name].unparse()
  configs = _configs(values)
  found: dict[str, list[tuple[str, str]]] = {name: [] for name in configs}
  rest = list(_without_settings(list(words), found))
  for name, flag in configs.items():
    flag.settings = tuple(found[name])
  hint = ''.join(f' A field of the config is set by --{name}.FIELD=VALUE.' for name in configs)
  try:
    extra = values(['tfm', *rest])[1:]
  except flags.UnrecognizedFlagError as e:
    raise errors.UserError(errors.unknown('flag', e.flagname, values) + hint) from None
  except flags.IllegalFlagValueError as e:
    raise errors.UserError(_illegal(values, str(e))) from None
  if extra:
    raise errors.UserError(f'{extra[0]}: is no flag. Expected --name=value.{hint}')


def _illegal(values: flags.FlagValues, said: str) -> str:
  """What absl has said about a value, in the style of the house."""
  match = re.match(r'flag --([\w.]+)=(.*?): ', said, re.DOTALL)
  if not match or match[1] not in values:
    return said
  name, flag = match[1], values[match[1]]
  if match[2] == 'None':  # the validator of a required flag
    return f'--{name}: is missing. Expected {flag.help}'
  known = getattr(flag.parser, 'enum_values', None)
  if known:
    return f'--{name}: {errors.unknown("value", match[2], known)}'
  return (
    f'--{name}: want {flag.parser.syntactic_help or flag.parser.flag_type()}, got {match[2]!r}.'
  )


def _configs(values: flags.FlagValues) -> dict[str, _ConfigFlag]:
  return {name: flag for name in values if isinstance(flag := values[name], _ConfigFlag)}


def _without_settings(words: list[str], found: dict[str, list[tuple[str, str]]]) -> Iterator[str]:
  """The words that are no `--config.PATH=VALUE` or `--config.PATH VALUE`; those are put into
  `found`.
  """
  setting = re.compile(
    rf'--?({"|".join(map(re.escape, found)) or "(?!)"})(\.[^=]*)(?:=(.*))?', re.DOTALL
  )
  while words:
    word = words.pop(0)
    if not (match := setting.fullmatch(word)):
      yield word
      continue
    name, path, text = match.groups()
    if text is None:
      if not words or words[0].startswith('--'):
        raise errors.UserError(f'{word}: has no value. Expected {word}=VALUE.')
      text = words.pop(0)
    found[name].append((path if path.startswith('..') else path[1:], text))


def usage(values: flags.FlagValues, command: str, about: str | None) -> str:
  """The help of one command: what it does, and its flags."""
  lines = [f'usage: tfm {command} [--flag=value ...]', '', (about or '').strip(), '', 'flags:']
  for name in sorted(values):
    flag = values[name]
    default = 'FILE[:ARG]' if isinstance(flag, _ConfigFlag) else flag.default_as_str or 'VALUE'
    lines.append(f'  --[no]{name}' if flag.boolean else f'  --{name}={default}')
    lines += textwrap.wrap(flag.help, 100, initial_indent=' ' * 6, subsequent_indent=' ' * 6)
  return '\n'.join(lines)
