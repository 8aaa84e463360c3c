"""The fields of a published `config.json`, read so that none is left unread, and the names of activations."""

from collections.abc import Mapping
from typing import Any

from tfm.core import errors
from tfm.parts.act.base import Act
from tfm.parts.act.gelu import Gelu, GeluTanh, QuickGelu
from tfm.parts.act.relu import Relu, SquaredRelu
from tfm.parts.act.sigmoid import Swish
from tfm.parts.act.tanh import Tanh
from tfm.parts.relative.rope import RoPE
from tfm.zoo import bookkeeping
from tfm.zoo.rotary import read_rope
from tfm.zoo.rotary import rope_parameters as rope_parameters

ACTS: dict[str, Act] = {
  'gelu': Gelu(), 'gelu_new': GeluTanh(), 'gelu_pytorch_tanh': GeluTanh(), 'gelu_fast': GeluTanh(), 'relu': Relu(),
  'relu2': SquaredRelu(), 'silu': Swish(), 'swish': Swish(), 'quick_gelu': QuickGelu(), 'tanh': Tanh(),
}  # fmt: skip


class Fields(Mapping[str, Any]):
  """The fields of a config, which remember those that were read.

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
    """The value of a field that must be there.

    Raises: UserError if it is not.
    """
    if self.values_.get(name) is None:
      raise errors.UserError(f'{self.where}: {errors.unknown("field", name, self.values_)} It must be given.')
    self._read.add(name)
    return self.values_[name]

  def __iter__(self):
    return iter(self.values_)

  def __contains__(self, name: object) -> bool:
    return name in self.values_

  def __len__(self) -> int:
    return len(self.values_)

  def get(self, name: str, default: Any = None) -> Any:
    """The value of a field, or `default` where it is missing or null."""
    self._read.add(name)
    value = self.values_.get(name)
    return default if value is None else value

  def given(self, name: str, default: Any = None) -> Any:
    """The value of a field, None where it is null, `default` where it is missing."""
    self._read.add(name)
    return self.values_.get(name, default)

  @property
  def labels(self) -> int:
    """The number of labels of its classifier."""
    return len(self.get('id2label') or {}) or self.get('num_labels', 2)

  def part(self, name: str) -> 'Fields':
    """The fields of a config within this one; those of it that are left unread are so here."""
    if name not in self._parts:
      self._parts[name] = Fields(self.get(name, {}), f'{self.where}: {name}')
    return self._parts[name]

  def changed(self, **values: Any) -> 'Fields':
    """Return the fields with other values for some of them; what is read of them is read of this one too."""
    found = Fields({**self.values_, **values}, self.where)
    found._read, found._parts = self._read, self._parts
    return found

  def only(self, **values: Any) -> None:
    """Marks fields read of which this family knows one value each, the default.

    Raises: UserError for another value.
    """
    for name, known in values.items():
      if (value := self.get(name, known)) != known:
        raise errors.UserError(f'{self.where}: {name} is {value!r}. Known: {known!r}; nothing here computes another.')

  def skip(self, *names: str) -> None:
    """Marks fields read that, in this family, change nothing that is computed."""
    self._read.update(names)

  def choice(self, name: str, known: Mapping[str, Any], default: str | None = None) -> Any:
    """What `known` has for the field's value.

    Raises: UserError for a value it has not.
    """
    value = self[name] if default is None else self.get(name, default)
    if value not in known:
      raise errors.UserError(f'{self.where}: {name}: {errors.unknown("value", value, map(str, known))}')
    return known[value]

  def act(self, name: str, default: str | None = None) -> Act:
    """The activation that a field names."""
    return self.choice(name, ACTS, default)

  def rope(
    self, base: float = 1e4, layout: Any = 'halves', kind: str | None = None, fraction: float = 1.0, **options: Any
  ) -> RoPE:
    """Return the rotary position of the config (`tfm.zoo.rotary.read_rope`, which has the other `options`).

    Raises:
      UserError: for a scaling that tfm lacks, and for keys that are unknown, missing or contradictory.
    """
    return read_rope(self, base, layout, kind, fraction, **options)

  def unread(self) -> dict[str, Any]:
    """Return the fields that no family has read and that may change what is computed, by name and in order.

    Fields of a config within this one have its name before theirs: 'text_config.surprise'.
    """
    left = {n: v for n, v in self.values_.items() if n not in self._read and not bookkeeping.is_neutral(n, v)}
    within = {f'{part}.{n}': v for part, c in self._parts.items() for n, v in c.unread().items()}
    return dict(sorted({**left, **within}.items()))

  def read_names(self) -> set[str]:
    """Return the names of the fields that the family reads, those of configs within this one as in `unread`."""
    within = {f'{part}.{n}' for part, c in self._parts.items() for n in c.read_names()}
    return {*self._read, *within}


def name_of(act: Act, usual: str = 'gelu_new') -> str:
  """What configs call an activation; of several names the usual one.

  Raises: UserError if they have no name for it.
  """
  for name, known in {usual: ACTS[usual], **ACTS}.items():
    if known == act:
      return name
  raise errors.UserError(f'export: no published config has a name for the activation {act}. Known: {", ".join(ACTS)}.')
