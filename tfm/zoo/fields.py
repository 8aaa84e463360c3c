"""The fields of a published `config.json`, read so that none is left unread; and what several families write alike."""

from collections.abc import Mapping
import dataclasses
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

#: Fields that say nothing of what is computed: bookkeeping, how tensors are stored, tokens, training, and what only
#: generation reads.
SILENT = frozenset(
  """
  _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path architectures attn_implementation
  auto_map bad_words_ids begin_suppress_tokens bos_token bos_token_id cache_implementation chunk_size_feed_forward
  classifier_dropout cls_token_id decoder_start_token_id diversity_penalty do_sample dtype early_stopping
  encoder_no_repeat_ngram_size eos_token eos_token_id eos_token_ids experts_implementation finetuning_task
  force_bos_token_to_be_generated forced_bos_token_id forced_decoder_ids forced_eos_token_id gradient_checkpointing
  id2label init_std initializer_factor initializer_range is_encoder_decoder keys_to_ignore_at_inference label2id
  length_penalty mask_token_id max_length max_new_tokens min_length model_type moe_implementation no_repeat_ngram_size
  num_beam_groups num_beams num_labels num_return_sequences output_attentions output_hidden_states output_past
  output_router_logits output_scores pad_token pad_token_id prefix pretraining_tp problem_type pruned_heads
  quantization_config remove_invalid_values reorder_and_upcast_attn repetition_penalty return_dict
  return_dict_in_generate router_aux_loss_coef router_jitter_noise sep_token_id suppress_tokens task_specific_params
  temperature tfm_version tokenizer_class top_k top_p torch_dtype torchscript transformers.js_config
  transformers_version typical_p unk_token_id use_bfloat16 use_cache use_flash_attn
  """.split()  # noqa: SIM905
)

ACTS: dict[str, Act] = {
  'gelu': Gelu(), 'gelu_new': GeluTanh(), 'gelu_pytorch_tanh': GeluTanh(), 'gelu_fast': GeluTanh(), 'relu': Relu(),
  'relu2': SquaredRelu(), 'silu': Swish(), 'swish': Swish(), 'quick_gelu': QuickGelu(), 'tanh': Tanh(),
}  # fmt: skip


class Fields(Mapping[str, Any]):
  """The fields of a config; `unread` tells which of them nobody has asked for.

  Example:
    >>> c = Fields({'hidden_size': 8, 'hidden_act': 'silu', 'surprise': 3})
    >>> c['hidden_size'], c.get('eps', 1e-5), c.act('hidden_act')
    (8, 1e-05, Swish(beta=1.0))
    >>> c.unread()
    ['surprise=3']
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
    self,
    base: float = 1e4,
    layout: Any = 'halves',
    kind: str | None = None,
    fraction: float = 1.0,
    older: Mapping[str, str] | None = None,
  ) -> RoPE:
    """The rotary position of `rope_parameters` (of its entry `kind`), or of the older `rope_theta` and `rope_scaling`.

    `older` are names that a family once had for scalings.

    Raises: UserError for an unknown scaling.
    """
    given = dict(self.get('rope_parameters', {}))
    if kind is not None and kind in given:
      given = dict(given[kind])
    given = {**(self.get('rope_scaling') or {}), **given}
    base = given.get('rope_theta', self.get('rope_theta', base))
    fraction = given.get('partial_rotary_factor', self.get('partial_rotary_factor', fraction))
    name: Any = given.get('rope_type', given.get('type', 'default'))
    name = (older or {}).get(name, name)
    known = {'default': lambda _: Scaling(), **{n: make for n, (_, make) in _SCALINGS.items()}}
    if name not in known:
      raise errors.UserError(f'{self.where}: rope_parameters: {errors.unknown("rope_type", name, known)}')
    length = self.get('max_position_embeddings', 0)
    original = self.get('original_max_position_embeddings', length)
    scaling = known[name]({'original_max_position_embeddings': original, **given, 'length': length})
    return RoPE(float(base), layout, float(fraction), scaling)

  def unread(self) -> list[str]:
    """Fields that nobody asked for and that may change what is computed: neither silent, nor null, nor false."""
    known = self._read | SILENT
    own = [f'{n}={v!r}' for n, v in self.values_.items() if n not in known and v is not None and v is not False]
    return sorted([*own, *(f'{part}.{said}' for part, c in self._parts.items() for said in c.unread())])


def name_of(act: Act, usual: str = 'gelu_new') -> str:
  """What configs call an activation; of several names the usual one.

  Raises: UserError if they have no name for it.
  """
  for name, known in {usual: ACTS[usual], **ACTS}.items():
    if known == act:
      return name
  raise errors.UserError(f'export: no published config has a name for the activation {act}. Known: {", ".join(ACTS)}.')


def rope_parameters(rope: RoPE) -> dict[str, Any]:
  """`rope_parameters` as configs write them.

  Raises: UserError for a rotary position they cannot say.
  """
  base: dict[str, Any] = {'rope_theta': rope.base}
  if rope.fraction != 1:
    base['partial_rotary_factor'] = rope.fraction
  for name, (cls, _) in _SCALINGS.items():
    if type(rope.scaling) is cls:
      return {'rope_type': name, **base, **_said(rope.scaling)}
  return {'rope_type': 'default', **base}


#: Ours -> theirs, of every field of a scaling that configs have a name for.
_NAMES = {
  'factor': 'factor', 'low': 'low_freq_factor', 'high': 'high_freq_factor', 'fast': 'beta_fast', 'slow': 'beta_slow',
  'original': 'original_max_position_embeddings', 'attention': 'attention_factor', 'mscale': 'mscale',
  'mscale_all': 'mscale_all_dim', 'short': 'short_factor', 'long': 'long_factor', 'truncate': 'truncate',
}  # fmt: skip


def _said(scaling: Scaling) -> dict[str, Any]:
  values = {f.name: getattr(scaling, f.name) for f in dataclasses.fields(scaling)}
  plain = lambda v: list(v) if isinstance(v, tuple) else v
  return {_NAMES[n]: plain(v) for n, v in values.items() if n in _NAMES and v is not None}


def _reader(cls: type[Scaling]) -> Any:
  def read(given: Mapping[str, Any]) -> Scaling:
    names = {f.name for f in dataclasses.fields(cls)}
    found = {ours: given[theirs] for ours, theirs in _NAMES.items() if ours in names and given.get(theirs) is not None}
    found |= {'length': given['length']} if 'length' in names else {}
    return cls(**{n: tuple(v) if isinstance(v, list) else v for n, v in found.items()})

  return cls, read


_SCALINGS = {
  'linear': _reader(Linear), 'dynamic': _reader(Dynamic), 'llama3': _reader(Llama3), 'longrope': _reader(LongRoPE),
  'yarn': _reader(Yarn),
}  # fmt: skip
