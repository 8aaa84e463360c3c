"""Names of the tensors of a checkpoint: spellings that mean the same tensor, and tensors that hold
no parameter.

Training wrappers add parts to names, older programs have other names, and the prefix of the body
comes and goes with the class that saved the file. `Names` finds a tensor under any of these
spellings."""

from collections.abc import Mapping, Sequence
import re

from tfm.zoo.weights import Family

#: Parts that wrappers put into names: DataParallel, torch.compile, FSDP, activation checkpointing.
_WRAPPERS = frozenset({'module', '_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module'})
#: Further prefixes of the whole model: in classes with a head, and in models that contain a text
#: model.
_PREFIXES = ('model.', 'language_model.', 'base_model.', 'auto_model.', 'transformer.')
#: What TensorFlow's checkpoints call the parameters of a norm.
_OLDER = {'gamma': 'weight', 'beta': 'bias'}
#: Tensors that follow from the config: angles, positions, masks, counters.
_BUFFERS = re.compile(
  r'(^|\.)(\w*inv_freq|\w*cos_cached|\w*sin_cached|freqs_cis|position_ids|token_type_ids|masked_bias|causal_mask'
  r'|num_batches_tracked|relative_position_index|_extra_state|_float_tensor)$'
)


def unwrapped(family: Family, name: str) -> str:
  """Return the name of a tensor without the parts of wrappers, with today's names of parameters and
  modules.
  """
  parts = [part for part in name.split('.') if part not in _WRAPPERS]
  parts[-1:] = [_OLDER.get(part, part) for part in parts[-1:]]
  name = '.'.join(parts)
  for alias, module in family.aliases.items():
    if name.startswith(f'{alias}.'):
      name = module + name.removeprefix(alias)
  return name


def key(family: Family, name: str) -> str:
  """Return the part that all spellings of a tensor's name share.

  Example:
    >>> from tfm.zoo.weights import TABLE
    >>> {key(TABLE['bert'], n) for n in ('bert.embeddings.LayerNorm.weight', 'module.embeddings.LayerNorm.gamma')}
    {'embeddings.LayerNorm.weight'}
  """
  name = unwrapped(family, name)
  prefixes = (family.prefix, *_PREFIXES) if family.prefix else _PREFIXES
  while name.startswith(prefixes):
    name = name.removeprefix(next(p for p in prefixes if name.startswith(p)))
  return name


def is_buffer(name: str, shape: Sequence[int]) -> bool:
  """Return whether a tensor is a buffer and no parameter: by its name, or as a causal mask `[1, 1,
  T, T]`.
  """
  if _BUFFERS.search(name):
    return True
  return (
    name.endswith('.bias')
    and len(shape) == 4
    and tuple(shape[:2]) == (1, 1)
    and shape[2] == shape[3]
  )


class Names:
  """The tensors of a checkpoint under all spellings of their names."""

  def __init__(self, family: Family, names: Mapping[str, object]):
    self.family = family
    self._held: dict[str, list[str]] = {}
    self._found: dict[str, list[str]] = {}
    for name in names:
      self._held.setdefault(key(family, name), []).append(name)

  def spellings(self, name: str) -> list[str]:
    """Return the names in the checkpoint that mean the tensor `name`: that name, else the shortest
    one, first.
    """
    if name not in self._found:
      held = self._held.get(key(self.family, name), ())
      self._found[name] = sorted(held, key=lambda n: (n != name, len(n), n))
    return self._found[name]
