"""Load a config from `FILE[:ARG]`, a path or the name of a config that comes with the package."""

from collections.abc import Callable
import importlib.util
import inspect
from pathlib import Path
import sys
import traceback
from typing import Any
import zlib

import tfm
from tfm.core import errors

_PACKAGE = Path(tfm.__file__).parent


def load(named: str, flag: str = '--config', package: Path = _PACKAGE) -> Any:
  """Return the config of a file, by its `get_config(ARG)`, or `get_config()` without ARG.

  Args:
    named: `FILE[:ARG]`.
    flag: The flag that named it, for errors.
    package: The folder of the package, which has the configs that come with it.

  Returns:
    A frozen dataclass.

  Raises:
    ConfigError: There is no such file, or an error occurs in it.
  """
  name, _, arg = named.partition('.py:') if '.py:' in named else named.partition(':')
  path = find(f'{name}.py' if '.py:' in named else name, flag, package)
  get_config = _call(path, str(path), _module, path, zlib.crc32(str(path).encode())).__dict__.get(
    'get_config'
  )
  if not callable(get_config):
    raise errors.ConfigError(
      f'{path}: has no function get_config. Expected a function that returns an experiment.'
    )
  args = [arg] if arg else []
  given = f'{flag}={named.removesuffix(":")}'
  parameters = inspect.signature(get_config).parameters
  try:
    inspect.signature(get_config).bind(*args)
  except TypeError:
    expected = f'no argument after :, given {arg!r}'
    if not args:
      expected = f'{given}:{next(iter(parameters)).upper()}'
    raise errors.ConfigError(
      f'{given}: get_config takes {"no" if args else "an"} argument. Expected {expected}.'
    ) from None
  cfg = _call(path, given, get_config, *args)
  frozen = getattr(cfg, '__dataclass_params__', None)
  if isinstance(cfg, type) or frozen is None or not frozen.frozen:
    raise errors.ConfigError(
      f'{path}: get_config returned {cfg!r:.80}. Expected a frozen dataclass.'
    )
  return cfg


def shipped(package: Path = _PACKAGE) -> dict[str, Path]:
  """Return the configs that come with the package, by name, from the checkout or the wheel."""
  checkout = package.parent / 'configs'
  folder = checkout if (package.parent / 'pyproject.toml').exists() else package / '_configs'
  return {path.stem: path for path in sorted(folder.glob('*.py')) if not path.stem.startswith('_')}


def find(name: str, flag: str = '--config', package: Path = _PACKAGE) -> Path:
  """Return the file at path `name`, or else the config of that name that comes with the package."""
  known = shipped(package)
  expected = f'Expected {flag}=FILE[:ARG], a path, or a name: {", ".join(known) or "none shipped"}.'
  if not name:
    raise errors.ConfigError(f'{flag}: is missing. {expected}')
  if Path(name).is_file():
    return Path(name)
  if Path(name).is_dir():
    raise errors.ConfigError(f'{flag}: {name} is a directory. {expected}')
  short = name.removeprefix('configs/').removesuffix('.py')
  if short not in known:
    raise errors.ConfigError(
      f'{flag}: no file {name}, and {errors.unknown("config", short, known)}'
    )
  return known[short]


def _module(path: Path, number: int) -> Any:
  # The number distinguishes files with one name. Dataclasses look up their module while it loads.
  spec = importlib.util.spec_from_file_location(f'_config_{path.stem}_{number:08x}', path)
  if spec is None or spec.loader is None:
    raise errors.ConfigError(
      f'{path}: is not a Python file. Expected a file with a function get_config.'
    )
  sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _call(path: Path, where: str, function: Callable[..., Any], *args: Any) -> Any:
  """Call a function of a config file; errors name the line of the file, or `where`."""
  try:
    return function(*args)
  except errors.UserError as e:
    raise errors.ConfigError(f'{where}: {e}') from e
  except SyntaxError as e:
    raise errors.ConfigError(f'{e.filename}:{e.lineno}: {e.msg}.') from e
  except Exception as e:
    inside = [f.lineno for f in traceback.extract_tb(e.__traceback__) if f.filename == str(path)]
    line = f':{inside[-1]}' if inside else ''
    raise errors.ConfigError(f'{path}{line}: {type(e).__name__}: {e}') from e
