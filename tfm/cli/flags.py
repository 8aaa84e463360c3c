"""The flags of one command, on absl: `--config=FILE[:ARG]`, `--config.PATH=VALUE` and others."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import re
import textwrap
from typing import Any

from absl import flags

from tfm.cli import configfile
from tfm.core import config, errors

#: Columns of `--help`, and of the flags in it.
_WIDTH, _FLAG = 80, 27


class Flags(flags.FlagValues):
  """The flags of one command, in titled groups for `--help`.

  Define flags with `flags.DEFINE_...(..., flag_values=self)`. Each joins the last group opened.

  Args:
    words: What words without dashes mean, for `--help`; None refuses such words.
  """

  def __init__(self, words: str | None = None):
    # FlagValues takes attributes for flags, so these go into __dict__.
    self.__dict__.update(accepts=words, words=(), groups={}, hidden=set(), open='')
    super().__init__()
    self.set_gnu_getopt(True)  # or a word without dashes would hide the flags after it

  def group(self, title: str, hidden: bool = False) -> None:
    """Open a group of flags; a hidden one is listed by `--help=all` only."""
    self.__dict__['open'] = title
    if hidden:
      self.__dict__['hidden'].add(title)

  def __setitem__(self, name: str, flag: 'flags.Flag[Any]') -> None:
    super().__setitem__(name, flag)
    self.__dict__['groups'].setdefault(self.__dict__['open'], []).append(name)


class _ConfigFlag(flags.Flag):  # type: ignore[type-arg]
  """A flag with settings below its name: `--config.model.d_model=64`."""

  settings: tuple[tuple[str, str], ...] = ()
  needed: bool = False


@dataclasses.dataclass(frozen=True)
class Config:
  """The config that a command is given: a file and the settings of its flags."""

  values: Flags
  name: str

  @property
  def file(self) -> str | None:
    """The value of `--config`."""
    return self.values[self.name].value

  @property
  def settings(self) -> tuple[tuple[str, str], ...]:
    """`(path, text)` of every `--config.PATH=VALUE`, in order."""
    return _configs(self.values)[self.name].settings

  def resolve(
    self, base: Any = None, check: Callable[[Any], Sequence[str]] = config.violations
  ) -> config.Resolved:
    """Return the config with all settings applied, and the sources of its values.

    Args:
      base: A config to change; None loads the file.
      check: Returns the mistakes in a config.

    Raises:
      ConfigError: Lists every wrong setting and value.
    """
    if base is None:
      base = configfile.load(self.file or '', f'--{self.name}')
    mistakes: list[str] = []
    resolved = config.resolve(base, self.settings, f'--{self.name}', mistakes)
    mistakes += check(resolved.config)
    if mistakes:
      raise errors.ConfigError('\n'.join(dict.fromkeys(mistakes)))
    return resolved


def new(words: str | None = None) -> Flags:
  """Return the flags that every command has; `words` as in `Flags`."""
  values = Flags(words)
  values.group('Other')
  flags.DEFINE_bool('debug', False, 'print the traceback of an error', flag_values=values)
  values.group('')
  return values


def define_config(values: Flags, name: str = 'config', needed: bool = False) -> Config:
  """Define `--NAME=FILE[:ARG]` and `--NAME.PATH=VALUE`.

  Args:
    values: The flags of the command.
    name: The name of the flag.
    needed: Whether the command cannot run without it.
  """
  what = 'file or name' if name == 'config' else 'another config'
  text = (
    f'{what}; --{name}.PATH=VALUE sets a field. A config that comes with tfm, or a Python file '
    'with a function get_config(ARG). PATH joins names by dots, with an index or * for tuples and '
    '.. for any depth'
  )
  flag = _ConfigFlag(flags.ArgumentParser(), flags.ArgumentSerializer(), name, None, text)
  flag.needed = needed
  flags.DEFINE_flag(flag, flag_values=values)
  return Config(values, name)


def define_checkpoint(values: Flags) -> flags.FlagHolder[str]:
  """Define the required `--checkpoint=PATH` of a command that reads a model."""
  text = 'a --workdir, one checkpoint, or a published folder'
  return flags.DEFINE_string('checkpoint', None, text, required=True, flag_values=values)


def define_ignored(values: Flags) -> flags.FlagHolder[list[str]]:
  """Define `--ignore_fields=NAME,NAME`, the `ignore` of `tfm.load`."""
  text = 'unknown fields of config.json that change no result'
  return flags.DEFINE_list('ignore_fields', [], text, flag_values=values)


def define_adapter(values: Flags) -> flags.FlagHolder[str | None]:
  """Define `--adapter=FOLDER`, the `adapter` of `tfm.load`."""
  text = 'a PEFT LoRA adapter trained on the published model'
  return flags.DEFINE_string('adapter', None, text, flag_values=values)


def parse(values: Flags, words: Sequence[str]) -> None:
  """Set the flags from the words after the command; others get their defaults.

  Raises:
    UserError: Lists every unknown, missing and illegal flag, and the mistakes of the configs.
  """
  for name in values:
    values[name].unparse()
  configs = _configs(values)
  settings: dict[str, list[tuple[str, str]]] = {name: [] for name in configs}
  rest = list(_without_settings(list(words), settings))
  for name, flag in configs.items():
    flag.settings = tuple(settings[name])
  hint = ''.join(f' Fields of the config are set by --{name}.FIELD=VALUE.' for name in configs)
  extra, mistakes = _parsed(values, rest, hint)
  if extra and values.__dict__['accepts'] is None:
    mistakes.append(f'{extra[0]}: is not a flag. Expected --name=value.{hint}')
  values.__dict__['words'] = tuple(extra)
  if mistakes:
    raise errors.UserError('\n'.join([*mistakes, *_config_mistakes(values)]))


def _parsed(values: Flags, words: list[str], hint: str) -> tuple[list[str], list[str]]:
  """Parse the words and return (words that are no flags, mistakes); every flag is tried."""
  mistakes: dict[str, str] = {}
  while True:
    try:
      return values(['tfm', *words])[1:], list(mistakes.values())
    except flags.UnrecognizedFlagError as e:
      name = e.flagname
      mistakes[name] = errors.unknown('flag', name, values) + hint
    except flags.IllegalFlagValueError as e:
      for message in re.split(r'\n(?=flag --)', str(e)):
        match = re.match(r'flag --([\w.]+)=', message)
        name = match[1] if match else ''
        mistakes.setdefault(name, _illegal(values, message))
    wrong = re.compile(rf'--?(no)?{re.escape(name)}(=.*)?', re.DOTALL)
    kept = [word for word in words if not wrong.fullmatch(word)]
    if len(kept) == len(words):  # a missing flag: no word is to blame
      return [], list(mistakes.values())
    words = kept


def _config_mistakes(values: Flags) -> Iterator[str]:
  """Yield the errors of given and needed configs, so that one run reports all mistakes."""
  for name, flag in _configs(values).items():
    if flag.value or flag.needed:
      try:
        Config(values, name).resolve()
      except errors.UserError as error:
        yield str(error)


def _illegal(values: Flags, message: str) -> str:
  """Return absl's message about a value in the form of tfm's errors."""
  match = re.match(r'flag --([\w.]+)=(.*?): ', message, re.DOTALL)
  if not match or match[1] not in values:
    return message
  name, flag = match[1], values[match[1]]
  if match[2] == 'None':  # the validator of a required flag
    return f'--{name}: is missing. Expected {(flag.help or "").removesuffix(".")}.'
  known = getattr(flag.parser, 'enum_values', None)
  if known:
    return f'--{name}: {errors.unknown("value", match[2], known)}'
  expected = flag.parser.syntactic_help or flag.parser.flag_type()
  return f'--{name}: is {match[2]!r}. Expected {expected}.'


def _configs(values: Flags) -> dict[str, _ConfigFlag]:
  return {name: flag for name in values if isinstance(flag := values[name], _ConfigFlag)}


def _without_settings(
  words: list[str], settings: dict[str, list[tuple[str, str]]]
) -> Iterator[str]:
  """Yield the words that are no `--config.PATH=VALUE`; put the others into `settings`."""
  names = '|'.join(map(re.escape, settings)) or '(?!)'
  setting = re.compile(rf'--?({names})(\.[^=]*)(?:=(.*))?', re.DOTALL)
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
    settings[name].append((path if path.startswith('..') else path[1:], text))


def usage(values: Flags, command: str, about: str | None, full: bool = False) -> str:
  """Return the help of one command.

  Args:
    values: Its flags.
    command: Its name.
    about: What it does, with examples.
    full: Whether to list hidden groups and whole descriptions; otherwise each flag has one line.

  Returns:
    The text, at most 80 columns wide.
  """
  accepts = values.__dict__['accepts']
  words = f' [{accepts} ...]' if accepts else ''
  lines = [f'usage: tfm {command} [--flag=value ...]{words}', '', (about or '').strip()]
  groups, hidden = values.__dict__['groups'], values.__dict__['hidden']
  shown = [title for title in groups if title != 'Other' and (full or title not in hidden)]
  for title in [*shown, 'Other']:
    lines += ['', f'{title or "Flags"}:']
    for name in groups[title]:
      lines += _described(name, values[name], full)
  if not full and hidden:
    names = ', '.join(title.lower() for title in groups if title in hidden)
    lines.append(_aligned('--help=all', f'more flags: {names}'))
  return '\n'.join(lines)


def _described(name: str, flag: 'flags.Flag[Any]', full: bool) -> list[str]:
  """Return the lines of a flag: its name with the default or the kind of value, and its text."""
  if flag.boolean:
    spelt = f'--[no]{name}' if flag.default else f'--{name}'
  else:
    spelt = f'--{name}={_value(flag)}'
  text = ' '.join(flag.help.split()).partition('; repeat this option')[0].removesuffix('.')
  text = re.sub(r'^<[^>]*>: ', '', text)  # absl lists the values of an enum here
  if not full:
    text = re.split(r'(?<=\w)\. (?=[A-Z])', text)[0]
  if not full:
    text = textwrap.shorten(text, _WIDTH - _FLAG - 2, placeholder=' ...')
  return [_aligned(spelt, text)]


def _aligned(spelt: str, text: str) -> str:
  """Return a flag and its text in two columns."""
  gap = ' ' * (_FLAG + 2)
  start = f'  {spelt:<{_FLAG}}' if len(spelt) < _FLAG else f'  {spelt}\n{gap}'
  return start + f'\n{gap}'.join(textwrap.wrap(text, _WIDTH - len(gap)))


def _value(flag: 'flags.Flag[Any]') -> str:
  if isinstance(flag, _ConfigFlag):
    return 'FILE[:ARG]'
  if known := getattr(flag.parser, 'enum_values', None):
    return '|'.join(known)
  if flag.default in (None, [], ''):
    kinds = {'int': 'N', 'float': 'X'}
    return kinds.get(flag.flag_type(), 'TEXT')
  return str(flag.default) if not isinstance(flag.default, list) else ','.join(flag.default)
