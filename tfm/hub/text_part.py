"""The language model inside a folder of a model that also reads images or audio."""

from collections.abc import Mapping
import dataclasses
import sys
from typing import Any

from tfm.core import errors
from tfm.hub.tensors import Entry, Tensors
from tfm.zoo import weights


@dataclasses.dataclass(frozen=True)
class Outer:
  """A published model around a language model.

  Attributes:
    architecture: its class.
    inner: the `model_type` of its `text_config`, if that names none.
    own: fields of its config that the language model does not use.
  """

  architecture: str
  inner: str
  own: tuple[str, ...]


_LLAVA = (
  'text_config', 'vision_config', 'image_token_index', 'image_token_id', 'projector_hidden_act',
  'vision_feature_layer', 'multimodal_projector_bias', 'vision_feature_select_strategy',
  'image_seq_length',
  'ignore_index',
)  # fmt: skip
_GEMMA = (
  'text_config', 'vision_config', 'image_token_index', 'image_token_id', 'boi_token_index',
  'boi_token_id',
  'eoi_token_index', 'eoi_token_id', 'mm_tokens_per_image',
)  # fmt: skip
_GEMMA3N = (
  *_GEMMA, 'audio_config', 'audio_token_id', 'boa_token_id', 'eoa_token_id',
  'audio_soft_tokens_per_image',
  'vision_soft_tokens_per_image',
)  # fmt: skip
_LLAMA4 = (
  'text_config',
  'vision_config',
  'boi_token_index',
  'eoi_token_index',
  'image_token_index',
)
_QWEN = (
  'text_config', 'vision_config', 'image_token_id', 'video_token_id', 'vision_start_token_id',
  'vision_end_token_id',
)  # fmt: skip
#: By `model_type`. Without an image each computes what its language model computes.
OUTER = {
  'gemma3': Outer('Gemma3ForConditionalGeneration', 'gemma3_text', _GEMMA),
  'gemma3n': Outer('Gemma3nForConditionalGeneration', 'gemma3n_text', _GEMMA3N),
  'llama4': Outer('Llama4ForConditionalGeneration', 'llama4_text', _LLAMA4),
  'llava': Outer('LlavaForConditionalGeneration', 'llama', _LLAVA),
  'llava_next': Outer(
    'LlavaNextForConditionalGeneration',
    'llama',
    (*_LLAVA, 'image_grid_pinpoints', 'use_image_newline_parameter'),
  ),
  'mistral3': Outer('Mistral3ForConditionalGeneration', 'mistral', (*_LLAVA, 'spatial_merge_size')),
  'qwen3_5': Outer('Qwen3_5ForConditionalGeneration', 'qwen3_5_text', _QWEN),
  'qwen3_5_moe': Outer('Qwen3_5MoeForConditionalGeneration', 'qwen3_5_moe_text', _QWEN),
}

#: Fields of `text_config` that published configs leave out, as they have the value that their
#: authors' code has.
_DEFAULTS: dict[str, dict[str, Any]] = {
  'gemma3_text': {
    'vocab_size': 262_208, 'hidden_size': 2304, 'intermediate_size': 9216, 'num_hidden_layers': 26,
    'num_attention_heads': 8,
  },
  'llama': {
    'vocab_size': 32_000, 'hidden_size': 4096, 'intermediate_size': 11_008, 'num_hidden_layers': 32,
    'num_attention_heads': 32,
  },
  'mistral': {
    'vocab_size': 32_000, 'hidden_size': 4096, 'intermediate_size': 14_336, 'num_hidden_layers': 32,
    'num_attention_heads': 32,
  },
}  # fmt: skip
_TIED = 'tie_word_embeddings'
#: What the names of the language model begin with, and what they begin with on their own.
_PREFIXES = {
  'language_model.lm_head.': 'lm_head.', 'language_model.model.': 'model.',
  'model.language_model.': 'model.',
  'lm_head.': 'lm_head.',
}  # fmt: skip
_VISION = (
  'vision_tower.', 'vision_model.', 'visual.', 'multi_modal_projector.', 'image_newline',
  'audio_tower.',
  'embed_vision.', 'embed_audio.',
)  # fmt: skip
_IMAGES = (*_VISION, *(f'model.{name}' for name in _VISION))


def text_config(values: Mapping[str, Any], where: str = 'config.json') -> dict[str, Any]:
  """Return the config of the language model; the config itself if it is of no known model around
  one.

  Args:
    values: the fields of a `config.json`.
    where: the name of the file, for errors.

  Raises:
    UserError: the class is not the one that generates text.
  """
  outer = OUTER.get(values.get('model_type', ''))
  if outer is None:
    return dict(values)
  name = (values.get('architectures') or [outer.architecture])[0]
  if name != outer.architecture:
    raise errors.UserError(f'{where}: {errors.unknown("class", name, [outer.architecture])}')
  inner: dict[str, Any] = dict(values.get('text_config') or {})
  kind = inner.get('model_type', outer.inner)
  around = {n: v for n, v in values.items() if n not in (*outer.own, 'architectures', 'model_type')}
  fields = {**_DEFAULTS.get(kind, {}), **around, **inner, 'model_type': kind}
  if kind not in weights.TABLE:
    return fields
  family: weights.Family = weights.TABLE[kind]
  return {**fields, 'architectures': [family.stem + family.head]}


def text_part(
  values: Mapping[str, Any], tensors: Tensors, where: str
) -> tuple[dict[str, Any], Tensors]:
  """Return the config and the tensors of the language model alone, and print that images are left
  out.

  Both are as they were if the config is of no known model around a language model.

  Args:
    values: the fields of a `config.json`.
    tensors: the tensors of its folder.
    where: the name of the file, for errors and for what is printed.

  Raises:
    UserError: the class is not the one that generates text.
  """
  fields = text_config(values, where)
  if values.get('model_type') not in OUTER:
    return fields, tensors
  images = [name for name in tensors if name.startswith(_IMAGES)]
  kept: dict[str, Entry] = {
    _text_name(n): e for n, e in tensors.entries.items() if not n.startswith(_IMAGES)
  }
  both = {
    given[_TIED]
    for given in (values, values.get('text_config') or {})
    if given.get(_TIED) is not None
  }
  if len(both) > 1:  # the file has a head of its own, or none
    fields[_TIED] = 'lm_head.weight' not in kept
  sentence = f'reads the language model of {values["model_type"]!r} and ignores {len(images)} tensors that read images or audio'
  print(f'{where}: {sentence}.', file=sys.stderr)
  return fields, Tensors(kept)


def _text_name(name: str) -> str:
  for theirs, ours in _PREFIXES.items():
    if name.startswith(theirs):
      return ours + name.removeprefix(theirs)
  return name
