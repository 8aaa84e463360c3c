"""Read the rotary position embedding of a published config.

The keys are those of `rope_parameters`, or `rope_theta` and `rope_scaling` in earlier versions.
Each key has the effect that it has in `transformers` 5.23.0. Otherwise it raises an error that says
what `transformers` does.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import TYPE_CHECKING, Any

from tfm.core import errors
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.scaling.base import Scaling
from tfm.parts.relative.scaling.dynamic import Dynamic
from tfm.parts.relative.scaling.linear import Linear
from tfm.parts.relative.scaling.llama3 import Llama3
from tfm.parts.relative.scaling.longrope import LongRoPE
from tfm.parts.relative.scaling.yarn import Yarn

if TYPE_CHECKING:
  from tfm.zoo.fields import Fields

#: Keys of every `rope_type`.
_COMMON = ('rope_theta', 'rope_type', 'type', 'partial_rotary_factor')
#: Keys without effect on text: a note of fine-tuning, and the axes of image positions.
_NOTES = ('finetuned', 'mrope_section', 'mrope_interleaved')
_ORIGINAL = 'original_max_position_embeddings'
#: Values that have no effect with a `rope_type` that ignores the key.
_NEUTRAL: dict[str, Any] = {'factor': 1, 'attention_factor': 1}


@dataclasses.dataclass(frozen=True)
class _Kind:
  """A `rope_type` and its keys.

  Attributes:
    make: function that returns the scaling.
    needs: required keys.
    takes: optional keys.
    records: keys that document how the model was trained and have no effect.
  """

  make: Callable[['_Entry'], Scaling]
  needs: tuple[str, ...] = ()
  takes: tuple[str, ...] = ()
  records: tuple[str, ...] = ()

  @property
  def keys(self) -> tuple[str, ...]:
    return (*_COMMON, *_NOTES, *self.needs, *self.takes, *self.records)


@dataclasses.dataclass(frozen=True)
class _Entry:
  """Keys of one rotary position embedding, and the config that has them.

  Attributes:
    c: fields of the config.
    values: the keys and their values.
    where: name of the table, for error messages.
    nested: whether the table belongs to one layer type.
    default_original: the family's default of the config field `original_max_position_embeddings`.
  """

  c: 'Fields'
  values: Mapping[str, Any]
  where: str
  nested: bool
  default_original: int | None

  def number(self, key: str, default: float | None = None, *, zero: bool = False) -> Any:
    """Return a positive number, or `default` if the key is missing or null."""
    value = self.values.get(key)
    return default if value is None else self.checked(key, value, zero=zero)

  def needed(self, key: str) -> Any:
    """Return a positive number that the config must have."""
    return self.checked(key, self.values.get(key))

  def checked(self, key: str, value: Any, *, zero: bool = False) -> Any:
    right = (
      isinstance(value, int | float)
      and not isinstance(value, bool)
      and (value > 0 or (zero and value == 0))
    )
    if not right:
      least = 'at least 0' if zero else 'above 0'
      raise errors.UserError(f'{self.where}: {key} is {value!r}. Expected a number {least}.')
    return value

  def numbers(self, key: str) -> tuple[float, ...]:
    """Return a list of positive numbers."""
    value = self.values.get(key)
    if not isinstance(value, list) or not value:
      raise errors.UserError(
        f'{self.where}: {key} is {value!r}. Expected a list with a number per rotated pair.'
      )
    return tuple(self.checked(f'{key}[{i}]', x) for i, x in enumerate(value))

  @property
  def length(self) -> int:
    """Value of the required config field `max_position_embeddings`."""
    return self.checked('max_position_embeddings', self.c['max_position_embeddings'])

  @property
  def original(self) -> int:
    """Length of pretraining; as in `transformers`, the config field overrides the key."""
    inside = self.values.get(_ORIGINAL)
    if not self.nested and (_ORIGINAL in self.c or self.default_original is not None):
      value = self.checked(_ORIGINAL, self.c.given(_ORIGINAL, self.default_original))
      if inside not in (None, value):
        raise errors.UserError(
          f'{self.where}: {_ORIGINAL} is {inside!r}, and {value!r} outside the table. Expected '
          'equal numbers; transformers uses the one outside.'
        )
      return value
    if _ORIGINAL not in self.values:
      return self.length
    return self.checked(_ORIGINAL, inside)


def _llama3(e: _Entry) -> Scaling:
  low, high = e.needed('low_freq_factor'), e.needed('high_freq_factor')
  if high < low:
    raise errors.UserError(
      f'{e.where}: high_freq_factor is {high!r}. Expected at least low_freq_factor={low!r}.'
    )
  return Llama3(e.needed('factor'), low, high, e.original)


def _dynamic(e: _Entry) -> Scaling:
  original = e.values.get(_ORIGINAL)
  if original not in (None, e.length):
    raise errors.UserError(
      f'{e.where}: {_ORIGINAL} is {original!r}. Expected max_position_embeddings={e.length!r}: '
      "transformers ignores this key with rope_type 'dynamic'."
    )
  return Dynamic(e.needed('factor'), e.length, e.length)


def _yarn(e: _Entry) -> Scaling:
  original, factor = e.original, e.number('factor')
  truncate = e.values.get('truncate', True)
  if e.nested and not truncate:
    raise errors.UserError(
      f'{e.where}: truncate is {truncate!r}. Expected true: transformers ignores other values '
      'inside a layer type.'
    )
  return Yarn(
    e.length / original if factor is None else factor, original,
    e.number('beta_fast', zero=True) or 32.0, e.number('beta_slow', zero=True) or 1.0,
    e.number('attention_factor', zero=True), e.number('mscale', zero=True),
    e.number('mscale_all_dim', zero=True),
    bool(truncate),
  )  # fmt: skip


def _longrope(e: _Entry) -> Scaling:
  short, long = e.numbers('short_factor'), e.numbers('long_factor')
  return LongRoPE(
    short, long, e.original, e.length, e.number('factor'), e.number('attention_factor', zero=True)
  )


_KINDS = {
  'default': _Kind(lambda _: Scaling(), records=(_ORIGINAL,)),
  'linear': _Kind(lambda e: Linear(e.needed('factor')), ('factor',), records=(_ORIGINAL,)),
  'dynamic': _Kind(_dynamic, ('factor',), (_ORIGINAL,)),
  'llama3': _Kind(_llama3, ('factor', 'low_freq_factor', 'high_freq_factor'), (_ORIGINAL,)),
  'longrope': _Kind(
    _longrope, ('short_factor', 'long_factor'), ('factor', 'attention_factor', _ORIGINAL)
  ),
  'yarn': _Kind(
    _yarn, ('factor',),
    (
      'attention_factor', 'beta_fast', 'beta_slow', 'mscale', 'mscale_all_dim', 'truncate',
      _ORIGINAL,
    ),
  ),
}  # fmt: skip


def read_rope(
  c: 'Fields',
  base: float = 1e4,
  layout: Any = 'halves',
  kind: str | None = None,
  fraction: float = 1.0,
  older: Mapping[str, str] | None = None,
  *,
  partial: bool = True,
  original: int | None = None,
  fields: tuple[str, str] = ('rope_theta', 'partial_rotary_factor'),
) -> RoPE:
  """Return the rotary position embedding of a config.

  Args:
    c: fields of the config.
    base: base if the config has none.
    layout: which dimensions of a head form a rotated pair: 'halves' or 'interleaved'.
    kind: layer type, for a family with an entry of `rope_parameters` per layer type.
    fraction: rotated fraction of a head if the config has none.
    older: earlier names of scalings in this family, and their present names.
    partial: whether the family supports `partial_rotary_factor`.
    original: default of the config field `original_max_position_embeddings`, for a family that has
      it.
    fields: config fields of the base and of the rotated fraction in earlier versions.

  Returns:
    The rotary position embedding with its scaling.

  Raises:
    UserError: for a key or value that `transformers` rejects or drops with a warning, and for two
      different values of one key.
  """
  values = _given(c, kind)
  where = f'{c.where}: {"rope_parameters" if c.get("rope_parameters") else "rope_scaling"}'
  entry = _Entry(
    c, values, where if kind is None else f'{where}: {kind}', kind is not None, original
  )
  name = _rope_type(entry, older or {})
  _check_keys(entry, name)
  c.skip(_ORIGINAL, 'max_position_embeddings')  # read by the types that need them
  flat = kind is None
  found = (
    _either(entry, 'rope_theta', fields[0], flat),
    _either(entry, 'partial_rotary_factor', fields[1], flat),
  )
  base = entry.checked('rope_theta', base if found[0] is None else found[0])
  part = fraction if found[1] is None else entry.checked('partial_rotary_factor', found[1])
  if not partial and part != 1:
    raise errors.UserError(
      f'{where}: partial_rotary_factor is {part!r}. Expected 1: this family rotates whole heads.'
    )
  return RoPE(float(base), layout, float(part), _KINDS[name].make(entry))


def _given(c: 'Fields', kind: str | None) -> dict[str, Any]:
  """Return the keys of `rope_scaling`, or else of `rope_parameters` (or its entry `kind`)."""
  both = {name: c.get(name) or {} for name in ('rope_parameters', 'rope_scaling')}
  for name, value in both.items():
    if not isinstance(value, Mapping):
      raise errors.UserError(f'{c.where}: {name} is {value!r}. Expected a table of keys.')
  new, old = both.values()
  if kind is not None:
    if new and old:
      raise errors.UserError(
        f'{c.where}: both rope_parameters and rope_scaling are set. Expected one of them.'
      )
    if flat := sorted(key for key, value in new.items() if not isinstance(value, Mapping | None)):
      raise errors.UserError(
        f'{c.where}: rope_parameters: {flat[0]} is outside the layer types. Expected it inside '
        f'{kind}; transformers ignores it outside.'
      )
    return dict(new.get(kind) or old)
  if not (new and old):
    return dict(old or new)
  plain = lambda key, value: key in ('rope_type', 'type') and value == 'default'
  for key, value in new.items():
    other = old.get(key, c.get(key))
    if other != value and not plain(key, value):
      difference = 'rope_scaling lacks it' if other is None else f'rope_scaling has {other!r}'
      raise errors.UserError(
        f'{c.where}: rope_parameters has {key}={value!r}, and {difference}. Expected one table; '
        'transformers ignores rope_parameters if both are set.'
      )
  return dict(old)


def _rope_type(e: _Entry, older: Mapping[str, str]) -> str:
  names = [e.values[key] for key in ('rope_type', 'type') if key in e.values]
  current = lambda name: older.get(name, name) if isinstance(name, str) else name
  mapped = [current(name) for name in names]
  if len({*map(repr, mapped)}) > 1 and names[1] is not None:
    raise errors.UserError(
      f'{e.where}: rope_type is {names[0]!r}, and type is {names[1]!r}. Expected equal values; '
      'transformers uses rope_type.'
    )
  name: Any = mapped[0] if mapped else 'default'
  if not isinstance(name, str) or name not in _KINDS:
    raise errors.UserError(f'{e.where}: {errors.unknown("rope_type", name, _KINDS)}')
  return name


def _check_keys(e: _Entry, name: str) -> None:
  kind = _KINDS[name]
  every = {key for k in _KINDS.values() for key in k.keys}
  for key, value in e.values.items():
    if key in kind.keys or value is None or (key in _NEUTRAL and value == _NEUTRAL[key]):
      continue
    if key in every:
      raise errors.UserError(
        f'{e.where}: {key} is {value!r}, and rope_type {name!r} ignores it. Expected no such key; '
        'transformers warns and ignores it.'
      )
    raise errors.UserError(f'{e.where}: {key}={value!r}: {errors.unknown("key", key, kind.keys)}')
  if missing := [key for key in kind.needs if key not in e.values]:
    raise errors.UserError(
      f'{e.where}: {missing[0]} is missing. Expected it with rope_type {name!r}, as in '
      'transformers.'
    )
  for key in ('rope_theta', 'partial_rotary_factor'):
    if key in e.values:
      e.checked(key, e.values[key])


def _either(e: _Entry, key: str, older: str, flat: bool) -> Any:
  """Return a value of the table, or else of a config field, or None.

  With `flat`, two different values are an error.
  """
  inside, outside = e.values.get(key), e.c.get(older)
  if inside is None and outside is None and older in e.c and older != 'partial_rotary_factor':
    raise errors.UserError(f'{e.c.where}: {older} is null. Expected a number, or no such field.')
  if flat and inside is not None and outside is not None and inside != outside:
    raise errors.UserError(
      f'{e.where}: {key} is {inside!r}, and {older}={outside!r} outside the table. Expected equal '
      'numbers; transformers uses the one inside.'
    )
  return outside if inside is None else inside
