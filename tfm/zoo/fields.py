"""Fields of a published `config.json`, and names of its activations and rotary scalings."""

from collections.abc import Iterator, Mapping
import dataclasses
import re
from typing import Any

from tfm.core import errors
from tfm.parts.act.base import Act
from tfm.parts.act.gelu import Gelu, GeluTanh, QuickGelu
from tfm.parts.act.relu import Relu, SquaredRelu
from tfm.parts.act.sigmoid import Swish
from tfm.parts.act.tanh import Tanh
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.scaling.base import Scaling
from tfm.parts.relative.scaling.dynamic import Dynamic
from tfm.parts.relative.scaling.linear import Linear
from tfm.parts.relative.scaling.llama3 import Llama3
from tfm.parts.relative.scaling.longrope import LongRoPE
from tfm.parts.relative.scaling.yarn import Yarn
from tfm.zoo import bookkeeping
from tfm.zoo.rotary import read_rope

ACTS: dict[str, Act] = {
  'gelu': Gelu(), 'gelu_new': GeluTanh(), 'gelu_pytorch_tanh': GeluTanh(), 'gelu_fast': GeluTanh(),
  'relu': Relu(),
  'relu2': SquaredRelu(), 'silu': Swish(), 'swish': Swish(), 'quick_gelu': QuickGelu(),
  'tanh': Tanh(),
}  # fmt: skip

#: Fields in which null is an error, as in transformers.
_NEVER_NULL = frozenset(
  {
    'rms_norm_eps',
    'layer_norm_eps',
    'layer_norm_epsilon',
    'hidden_act',
    'activation_function',
    'attention_bias',
  }
)
#: Names of numeric fields.
_NUMBER = re.compile(
  r'^(num|n)_\w*(heads|layers|experts)$|^(hidden|intermediate|vocab)_size$|_(dim|eps|epsilon|theta)$'
)


class Fields(Mapping[str, Any]):
  """Mapping of a config's fields that records which ones a family reads.

  The record makes unknown fields an error: `unread` lists fields that no code has used.

  Args:
    values: fields of the config.
    where: name of the file, for error messages.

  Example:
    >>> c = Fields({'hidden_size': 8, 'hidden_act': 'silu', 'surprise': 3})
    >>> c['hidden_size'], c.get('eps', 1e-5), c.act('hidden_act')
    (8, 1e-05, Swish(beta=1.0))
    >>> c.unread()
    {'surprise': 3}
  """

  def __init__(self, values: Mapping[str, Any], where: str = 'config.json'):
    self.values_, self.where = dict(values), where
    self._read: set[str] = set()
    self._parts: dict[str, Fields] = {}

  def __getitem__(self, name: str) -> Any:
    """Return the value of a required field.

    Raises:
      UserError: if the field is missing or null, or if a numeric field has text.
    """
    if self.values_.get(name) is None:
      raise errors.UserError(
        f'{self.where}: {name} is missing. Expected this field: '
        f'{errors.unknown("field", name, self.values_)}'
      )
    self._read.add(name)
    if isinstance(self.values_[name], str) and _NUMBER.search(name):
      raise errors.UserError(
        f'{self.where}: {name} is {self.values_[name]!r} (text). Expected a number.'
      )
    return self.values_[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self.values_)

  def __contains__(self, name: object) -> bool:
    return name in self.values_

  def __len__(self) -> int:
    return len(self.values_)

  def get(self, name: str, default: Any = None) -> Any:
    """Return the value of a field, or `default` if it is missing or null.

    Raises:
      UserError: for null where `transformers` also raises, and for text in a numeric field.
    """
    self._read.add(name)
    value = self.values_.get(name)
    if value is None and name in self.values_ and name in _NEVER_NULL:
      raise errors.UserError(f'{self.where}: {name} is null. Expected a value, or no such field.')
    if isinstance(value, str) and _NUMBER.search(name):
      raise errors.UserError(f'{self.where}: {name} is {value!r} (text). Expected a number.')
    return default if value is None else value

  def given(self, name: str, default: Any = None) -> Any:
    """Return the value of a field as written: None if null, `default` if missing."""
    self._read.add(name)
    return self.values_.get(name, default)

  @property
  def labels(self) -> int:
    """Number of classes of the classifier."""
    return len(self.get('id2label') or {}) or self.get('num_labels', 2)

  def part(self, name: str) -> 'Fields':
    """Return the fields of a nested config; its unread fields are listed by `unread` too."""
    if name not in self._parts:
      self._parts[name] = Fields(self.get(name, {}), f'{self.where}: {name}')
    return self._parts[name]

  def changed(self, **values: Any) -> 'Fields':
    """Return a copy with other values, which shares this object's record of read fields."""
    found = Fields({**self.values_, **values}, self.where)
    found._read, found._parts = self._read, self._parts
    return found

  def only(self, **values: Any) -> None:
    """Mark fields as read that must be missing or have the given value.

    Args:
      **values: the only supported value of each field, which is also its default.

    Raises:
      UserError: for another value.
    """
    for name, known in values.items():
      if (value := self.get(name, known)) != known:
        raise errors.UserError(
          f'{self.where}: {name} is {value!r}. Expected {known!r}, the only supported value.'
        )

  def skip(self, *names: str) -> None:
    """Mark fields as read that change no output of this family."""
    self._read.update(names)

  def choice(self, name: str, known: Mapping[str, Any], default: str | None = None) -> Any:
    """Return the entry of `known` that a field names.

    Args:
      name: name of the field.
      known: values by their names in configs.
      default: name to use if the field is missing or null; None makes the field required.

    Returns:
      The value in `known`.

    Raises:
      UserError: for a name that `known` lacks.
    """
    value = self[name] if default is None else self.get(name, default)
    if value not in known:
      raise errors.UserError(
        f'{self.where}: {name}: {errors.unknown("value", value, map(str, known))}'
      )
    return known[value]

  def act(self, name: str, default: str | None = None) -> Act:
    """Return the activation that a field names."""
    return self.choice(name, ACTS, default)

  def rope(
    self,
    base: float = 1e4,
    layout: Any = 'halves',
    kind: str | None = None,
    fraction: float = 1.0,
    **options: Any,
  ) -> RoPE:
    """Return the rotary position embedding of the config; see `tfm.zoo.rotary.read_rope`.

    Args:
      base: base if the config has none.
      layout: which dimensions of a head form a rotated pair: 'halves' or 'interleaved'.
      kind: layer type, if `rope_parameters` has an entry for each layer type.
      fraction: rotated fraction of a head if the config has none.
      **options: further arguments of `read_rope`.

    Returns:
      The rotary position embedding with its scaling.

    Raises:
      UserError: for an unsupported scaling, and for unknown, missing or contradictory keys.
    """
    return read_rope(self, base, layout, kind, fraction, **options)

  def unread(self) -> dict[str, Any]:
    """Return the unread fields that may change the outputs, sorted by name.

    A field of a nested config is prefixed with the name of that config: 'text_config.surprise'.
    """
    left = {
      n: v
      for n, v in self.values_.items()
      if n not in self._read and not bookkeeping.is_neutral(n, v)
    }
    within = {f'{part}.{n}': v for part, c in self._parts.items() for n, v in c.unread().items()}
    return dict(sorted({**left, **within}.items()))

  def read_names(self) -> set[str]:
    """Return the names of all read fields, nested fields as in `unread`."""
    within = {f'{part}.{n}' for part, c in self._parts.items() for n in c.read_names()}
    return {*self._read, *within}


def name_of(act: Act, usual: str = 'gelu_new') -> str:
  """Return the name of an activation in configs.

  Args:
    act: the activation.
    usual: name to prefer among several names of the same activation.

  Raises:
    UserError: if published configs have no name for it.
  """
  for name, known in {usual: ACTS[usual], **ACTS}.items():
    if known == act:
      return name
  raise errors.UserError(
    f'export: activation is {act}, which has no name in published configs. '
    f'Expected one of {", ".join(ACTS)}.'
  )


def rope_parameters(rope: RoPE) -> dict[str, Any]:
  """Return the `rope_parameters` of a config for a rotary position embedding."""
  base: dict[str, Any] = {'rope_theta': rope.base}
  if rope.fraction != 1:
    base['partial_rotary_factor'] = rope.fraction
  for cls, name in _TYPES.items():
    if type(rope.scaling) is cls:
      return {'rope_type': name, **base, **_written(rope.scaling)}
  return {'rope_type': 'default', **base}


_TYPES: dict[type[Scaling], str] = {
  Linear: 'linear', Dynamic: 'dynamic', Llama3: 'llama3', LongRoPE: 'longrope', Yarn: 'yarn',
}  # fmt: skip

#: Field of a scaling -> its key in a config.
_NAMES = {
  'factor': 'factor', 'low': 'low_freq_factor', 'high': 'high_freq_factor', 'fast': 'beta_fast',
  'slow': 'beta_slow',
  'original': 'original_max_position_embeddings', 'attention': 'attention_factor',
  'mscale': 'mscale',
  'mscale_all': 'mscale_all_dim', 'short': 'short_factor', 'long': 'long_factor',
  'truncate': 'truncate',
}  # fmt: skip


def _written(scaling: Scaling) -> dict[str, Any]:
  values = {f.name: getattr(scaling, f.name) for f in dataclasses.fields(scaling)}
  plain = lambda v: list(v) if isinstance(v, tuple) else v
  return {_NAMES[n]: plain(v) for n, v in values.items() if n in _NAMES and v is not None}
