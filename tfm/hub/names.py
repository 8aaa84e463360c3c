"""Alternative names of the tensors of a checkpoint.

Training wrappers add parts to names, older programs use other names, and the prefix of the
backbone depends on the class that saved the file. `Names` finds a tensor under any of these
spellings.
"""

from collections.abc import Mapping, Sequence
import re

from tfm.zoo.weights import Family

#: Name parts from wrappers: DataParallel, torch.compile, FSDP, activation checkpointing.
_WRAPPERS = frozenset({'module', '_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module'})
#: Prefixes of the model in classes with a head and in multimodal models.
_PREFIXES = ('model.', 'language_model.', 'base_model.', 'auto_model.', 'transformer.')
#: Norm parameters in TensorFlow's checkpoints -> their current names.
_TENSORFLOW = {'gamma': 'weight', 'beta': 'bias'}
#: Tensors that the config determines: rotary tables, positions, masks, counters.
_BUFFERS = re.compile(
  r'(^|\.)(\w*inv_freq|\w*cos_cached|\w*sin_cached|freqs_cis|position_ids|token_type_ids'
  r'|masked_bias|causal_mask|num_batches_tracked|relative_position_index|_extra_state'
  r'|_float_tensor)$'
)


def unwrapped(family: Family, name: str) -> str:
  """Return the name of a tensor without wrapper parts, with current module names."""
  parts = [part for part in name.split('.') if part not in _WRAPPERS]
  parts[-1:] = [_TENSORFLOW.get(part, part) for part in parts[-1:]]
  name = '.'.join(parts)
  for alias, module in family.aliases.items():
    if name.startswith(f'{alias}.'):
      name = module + name.removeprefix(alias)
  return name


def key(family: Family, name: str) -> str:
  """Return the part that all spellings of a tensor's name have in common.

  Example:
    >>> from tfm.zoo.weights import TABLE
    >>> names = ('bert.embeddings.LayerNorm.weight', 'module.embeddings.LayerNorm.gamma')
    >>> {key(TABLE['bert'], name) for name in names}
    {'embeddings.LayerNorm.weight'}
  """
  name = unwrapped(family, name)
  prefixes = (family.prefix, *_PREFIXES) if family.prefix else _PREFIXES
  while name.startswith(prefixes):
    name = name.removeprefix(next(p for p in prefixes if name.startswith(p)))
  return name


def is_buffer(name: str, shape: Sequence[int]) -> bool:
  """Return whether a tensor is a buffer instead of a parameter.

  It has the name of a buffer, or is a causal mask `[1, 1, T, T]` with the name `bias`.
  """
  if _BUFFERS.search(name):
    return True
  is_square = len(shape) == 4 and tuple(shape) == (1, 1, shape[2], shape[2])
  return name.endswith('.bias') and is_square


class Names:
  """Lookup of the tensors of a checkpoint by any spelling of their names."""

  def __init__(self, family: Family, names: Mapping[str, object]):
    self.family = family
    self._names: dict[str, list[str]] = {}
    self._sorted: dict[str, list[str]] = {}
    for name in names:
      self._names.setdefault(key(family, name), []).append(name)

  def spellings(self, name: str) -> list[str]:
    """Return the names of a tensor in the checkpoint: the given name first, then by length."""
    if name not in self._sorted:
      names = self._names.get(key(self.family, name), ())
      self._sorted[name] = sorted(names, key=lambda n: (n != name, len(n), n))
    return self._sorted[name]
