"""The base of all processors: a frozen config in Hugging Face's JSON format."""

from collections.abc import Iterable, Mapping
import dataclasses
import difflib
import re
from typing import Any, ClassVar, Self

from tfm.core import errors

#: Keys that describe a file or the library that wrote it, and do not change the output.
HARMLESS = frozenset({
  'image_processor_type', 'feature_extractor_type', 'processor_class', 'auto_map',
  'transformers_version',
  '_valid_processor_keys', 'image_seq_length', 'device', 'disable_grouping', 'return_tensors',
  'use_fast',
  'default_to_square', 'do_reduce_labels', 'reduce_labels', 'nb_max_frames', 'n_samples',
  'mel_filters',
})  # fmt: skip

#: Options of other processors that change the output. Every `do_...` does too.
_CHANGES_NUMBERS = frozenset({
  'crop_pct', 'min_pixels', 'max_pixels', 'size_divisor', 'size_divisibility', 'pad_size',
  'pad_to_multiple_of',
  'offset', 'use_square_size', 'image_grid_pinpoints', 'patch_size', 'max_patches', 'clusters',
  'ensure_multiple_of',
  'keep_aspect_ratio',
})  # fmt: skip


#: The least similarity of a class name for a hint. The common suffix alone gives about 0.8.
CLASS_CUTOFF = 0.9


def canonical(name: str) -> str:
  """Return a class name without the suffixes `Fast` and `Pil` of its implementations."""
  return re.sub(r'(?<=or)(Fast|Pil)$', '', name)


def near(name: str, known: Iterable[str], cutoff: float) -> str:
  """Return ` Did you mean 'x'?` for similar names, or an empty string.

  Args:
    name: The unknown name.
    known: The known names.
    cutoff: The least similarity, from 0 to 1.

  Returns:
    The hint, with at most three names.
  """
  matches = difflib.get_close_matches(name, sorted(known), n=3, cutoff=cutoff)
  return f' Did you mean {" or ".join(map(repr, matches))}?' if matches else ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processor:
  """A pure function from raw images or audio to model inputs.

  Its fields are the keys of its JSON config.

  Attributes:
    name: Hugging Face's class name, for example `CLIPImageProcessor`.
    source: The config that this was read from. `to_config` writes its keys back, known to tfm or
      not.
  """

  name: str = ''
  source: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)

  type_key: ClassVar[str]

  @classmethod
  def from_config(cls, config: Mapping[str, Any]) -> Self:
    """Read a config.

    Args:
      config: The object in `preprocessor_config.json`. A missing key or null means the default.

    Raises:
      ConfigError: A value is wrong, or an unsupported option changes the output.
    """
    raise NotImplementedError

  def to_config(self) -> dict[str, Any]:
    """Return the config: `source` with the changed fields, or all fields without a source."""
    values = {f: _plain(getattr(self, f)) for f in self.options()}
    if not self.source:
      return {self.type_key: self.name} | values
    before = self.from_config(self.source)
    changed = {f: v for f, v in values.items() if v != _plain(getattr(before, f))}
    if self.name != before.name:
      changed[self.type_key] = self.name
    return dict(self.source) | changed

  @classmethod
  def options(cls) -> dict[str, Any]:
    """Return the fields that are config keys, with their defaults."""
    fields = (f for f in dataclasses.fields(cls) if f.name not in ('name', 'source'))
    return {f.name: f.default for f in fields}

  @classmethod
  def read(cls, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of this class's fields in `config`, after a check of every key."""
    for key, value in config.items():
      if key not in cls.options() and key not in HARMLESS and value not in (None, False):
        _check_unknown(name, key, value, cls.options())
    return {k: config[k] for k in cls.options() if config.get(k) is not None}


def typed(where: str, value: Any, like: type) -> Any:
  """Check the type of a value. An int is a valid float, and a bool is only a bool.

  Args:
    where: The key in errors.
    value: The value.
    like: The expected type.

  Returns:
    The value, with an int converted to float if needed.

  Raises:
    ConfigError: It has another type.
  """
  if like is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if not isinstance(value, like) or (isinstance(value, bool) and like is not bool):
    raise errors.ConfigError(f'{where}: {value!r} has the wrong type. Expected {like.__name__}.')
  return value


def _check_unknown(name: str, key: str, value: Any, known: Any) -> None:
  """Raise if an unknown key may change the output. Other unknown keys are ignored."""
  if key == 'data_format' and value == 'channels_first':
    return
  hint = near(key, known, 0.8)
  if hint or key.startswith('do_') or key in _CHANGES_NUMBERS or key.endswith('data_format'):
    raise errors.ConfigError(
      f'{name}.{key}: this option is not supported and may change the output ({value!r}). '
      f'Expected a field of this processor.{hint}'
    )


def _plain(value: Any) -> Any:
  """Return a field's value as JSON holds it."""
  if hasattr(value, 'to_config'):
    return value.to_config()
  return list(value) if isinstance(value, tuple) else value
