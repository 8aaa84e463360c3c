"""Identify the model of a published config: its family, its class and its spec."""

from collections.abc import Collection, Iterator, Mapping
import contextlib
import difflib
from typing import Any, NamedTuple

from tfm.core import config, errors
from tfm.model.spec import Model
from tfm.zoo import rounding
from tfm.zoo.fields import Fields
from tfm.zoo.weights.family import Family

#: The most layers of a model. The deepest published one has 160.
_MAX_LAYERS = 10_000
#: Words in the names of widths and counts, and their largest value.
_WIDTHS = ('dim', 'head', 'hidden', 'embd', 'expert', 'rank', 'd_model', 'd_ff')
_MAX_WIDTH = 1 << 24


class Published(NamedTuple):
  """The model of a published config.

  Attributes:
    family: its family.
    ending: ending of its class, as in `Family.endings`.
    spec: the architecture.
    ignored: names of the config fields that were ignored.
  """

  family: Family
  ending: str
  spec: Model
  ignored: tuple[str, ...] = ()

  @property
  def architecture(self) -> str:
    """Name of its class in `transformers`."""
    return self.family.stem + self.ending


def identify(
  families: Mapping[str, Family],
  values: Mapping[str, Any],
  where: str,
  ignore: Collection[str] | None,
) -> Published:
  """Return the model of a published config; see `tfm.zoo.weights.published`.

  Args:
    families: the supported families by `model_type`.
    values: fields of the config.
    where: name of the file, for error messages.
    ignore: names of unknown fields to ignore; None ignores all of them.

  Returns:
    The family, class and spec of the model.

  Raises:
    UserError: for an unknown type or class, an unread field that may change the outputs, and an
      ignored field that the family reads.
  """
  c = Fields(values, where)
  kind = c.get('model_type')
  if kind is None:
    raise errors.UserError(
      f'{where}: model_type is missing. Expected a supported type, such as llama or bert.'
    )
  if not isinstance(kind, str) or kind not in families:
    raise errors.UserError(f'{where}: {errors.unknown("model_type", kind, families)}')
  family = families[kind]
  _check_sizes(values, where)
  with explained(where):
    ending = _ending(c, kind, family)
    spec = rounding.read(family.spec(c, ending), values, family.stem + ending, where)
  unread = c.unread()
  if ignore is None:
    return Published(family, ending, _valid(spec, where), tuple(unread))
  if absent := sorted(set(ignore) - {*values, *unread, *c.read_names()}):
    raise errors.UserError(
      f'{where}: {errors.unknown("field", absent[0], values)} '
      'Expected a field of the config to ignore.'
    )
  if read := sorted(set(ignore) & c.read_names()):
    raise errors.UserError(
      f'{where}: {read[0]} cannot be ignored, because {family.stem} depends on it. Expected '
      'unknown fields only.'
    )
  if left := {name: value for name, value in unread.items() if name not in ignore}:
    raise errors.UserError(f'{where}: {_unknown(kind, family, left, c)}')
  ignored = tuple(name for name in unread if name in ignore)
  return Published(family, ending, _valid(spec, where), ignored)


def _check_sizes(values: Mapping[str, Any], where: str) -> None:
  """Raise UserError for more layers than a spec can list, and wider ones than memory holds."""
  for name, value in values.items():
    if name.endswith(('layers', 'n_layer')) and isinstance(value, int) and value > _MAX_LAYERS:
      raise errors.UserError(
        f'{where}: {name} is {value}. Expected a number of layers up to {_MAX_LAYERS}.'
      )
    is_width = any(word in name for word in _WIDTHS)
    if is_width and isinstance(value, int) and value > _MAX_WIDTH:
      raise errors.UserError(
        f'{where}: {name} is {value}. Expected a width or a count up to {_MAX_WIDTH}.'
      )


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
  """Raise UserError for values of fields with which no model can be built."""
  try:
    yield
  except errors.UserError:
    raise
  except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, AssertionError) as e:
    raise errors.UserError(
      f'{where}: a field has a value that it cannot have ({type(e).__name__}: {e!s:.200}). '
      'Expected the types and sizes of a published config.'
    ) from e


def _ending(c: Fields, kind: str, family: Family) -> str:
  """Return the ending of the config's class, by default that with the language-model head."""
  ending: str = (c.get('architectures') or [family.head])[0]
  # MPT's published code writes capitals that transformers does not.
  if ending.lower().startswith(family.stem.lower()):
    ending = ending[len(family.stem) :]
  if ending not in family.endings:
    known = [family.stem + other for other in family.endings]
    raise errors.UserError(
      f'{c.where}: architectures is {ending!r}, which model_type {kind!r} lacks. '
      f'Expected one of {", ".join(known)}.'
    )
  return ending


def _valid(spec: Model, where: str) -> Model:
  """Return the spec if it is valid; otherwise raise a UserError that names the file."""
  try:
    return config.validate(spec)
  except errors.ConfigError as error:
    lines = '\n'.join(f'  {line}' for line in str(error).splitlines())
    raise errors.UserError(
      f'{where}: the model is invalid. Expected a valid combination:\n{lines}'
    ) from error


def _unknown(kind: str, family: Family, left: Mapping[str, Any], c: Fields) -> str:
  """Return the error message for unread fields, with near names."""
  given = ', '.join(f'{name}={value!r}' for name, value in left.items())
  read = sorted(c.read_names() - set(left))
  near = [n for name in left for n in difflib.get_close_matches(name, read, 1, 0.7)]
  hint = f' Did you mean {" and ".join(dict.fromkeys(near))}?' if near else ''
  names = tuple(left)
  return (
    f'{given}: unknown for model_type {kind!r}, and may change the outputs. Expected fields of '
    f'{family.stem}.{hint} If they change nothing, ignore them with tfm.load(path, '
    f'ignore={names!r}) or --ignore_fields={",".join(names)}.'
  )
