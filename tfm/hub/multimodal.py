"""Extract the language model of a published vision-language model."""

from collections.abc import Mapping
import dataclasses
import sys
from typing import Any

from tfm.core import errors
from tfm.hub.tensors import Entry, Tensors
from tfm.zoo import weights


@dataclasses.dataclass(frozen=True)
class Multimodal:
  """A published vision-language model with a language model that tfm supports.

  Attributes:
    architecture: The class that generates text.
    text_type: The default `model_type` of its `text_config`.
    ignored: The config fields that the language model does not use.
  """

  architecture: str
  text_type: str
  ignored: tuple[str, ...]


_LLAVA = (
  'text_config', 'vision_config', 'image_token_index', 'image_token_id', 'projector_hidden_act',
  'vision_feature_layer', 'multimodal_projector_bias', 'vision_feature_select_strategy',
  'image_seq_length', 'ignore_index',
)  # fmt: skip
_GEMMA = (
  'text_config', 'vision_config', 'image_token_index', 'image_token_id', 'boi_token_index',
  'boi_token_id', 'eoi_token_index', 'eoi_token_id', 'mm_tokens_per_image',
)  # fmt: skip
_GEMMA3N = (
  *_GEMMA, 'audio_config', 'audio_token_id', 'boa_token_id', 'eoa_token_id',
  'audio_soft_tokens_per_image', 'vision_soft_tokens_per_image',
)  # fmt: skip
_LLAMA4 = (
  'text_config', 'vision_config', 'boi_token_index', 'eoi_token_index', 'image_token_index',
)  # fmt: skip
_QWEN = (
  'text_config', 'vision_config', 'image_token_id', 'video_token_id', 'vision_start_token_id',
  'vision_end_token_id',
)  # fmt: skip
#: `model_type` -> model. Without images, each computes the same as its language model.
MULTIMODAL = {
  'gemma3': Multimodal('Gemma3ForConditionalGeneration', 'gemma3_text', _GEMMA),
  'gemma3n': Multimodal('Gemma3nForConditionalGeneration', 'gemma3n_text', _GEMMA3N),
  'llama4': Multimodal('Llama4ForConditionalGeneration', 'llama4_text', _LLAMA4),
  'llava': Multimodal('LlavaForConditionalGeneration', 'llama', _LLAVA),
  'llava_next': Multimodal(
    'LlavaNextForConditionalGeneration',
    'llama',
    (*_LLAVA, 'image_grid_pinpoints', 'use_image_newline_parameter'),
  ),
  'mistral3': Multimodal(
    'Mistral3ForConditionalGeneration', 'mistral', (*_LLAVA, 'spatial_merge_size')
  ),
  'qwen3_5': Multimodal('Qwen3_5ForConditionalGeneration', 'qwen3_5_text', _QWEN),
  'qwen3_5_moe': Multimodal('Qwen3_5MoeForConditionalGeneration', 'qwen3_5_moe_text', _QWEN),
}

#: Default values of `text_config` in the authors' code, which published configs omit.
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
#: Prefix of the language model's tensors -> their prefix in a checkpoint of only that model.
_PREFIXES = {
  'language_model.lm_head.': 'lm_head.',
  'language_model.model.': 'model.',
  'model.language_model.': 'model.',
  'lm_head.': 'lm_head.',
}
_VISION = (
  'vision_tower.', 'vision_model.', 'visual.', 'multi_modal_projector.', 'image_newline',
  'audio_tower.', 'embed_vision.', 'embed_audio.',
)  # fmt: skip
_IMAGES = (*_VISION, *(f'model.{name}' for name in _VISION))


def text_config(values: Mapping[str, Any], where: str = 'config.json') -> dict[str, Any]:
  """Return the config of the language model of a vision-language model.

  Other configs are returned unchanged.

  Args:
    values: The fields of a `config.json`.
    where: The path of the file, for errors.

  Raises:
    UserError: The class does not generate text.
  """
  outer = MULTIMODAL.get(values.get('model_type', ''))
  if outer is None:
    return dict(values)
  name = (values.get('architectures') or [outer.architecture])[0]
  if name != outer.architecture:
    raise errors.UserError(f'{where}: {errors.unknown("class", name, [outer.architecture])}')
  inner: dict[str, Any] = dict(values.get('text_config') or {})
  kind = inner.get('model_type', outer.text_type)
  ignored = (*outer.ignored, 'architectures', 'model_type')
  common = {name: value for name, value in values.items() if name not in ignored}
  fields = {**_DEFAULTS.get(kind, {}), **common, **inner, 'model_type': kind}
  if kind not in weights.TABLE:
    return fields
  family: weights.Family = weights.TABLE[kind]
  return {**fields, 'architectures': [family.stem + family.head]}


def language_model(
  values: Mapping[str, Any], tensors: Tensors, where: str
) -> tuple[dict[str, Any], Tensors]:
  """Return the config and tensors of the language model of a vision-language model.

  A line on stderr reports the ignored image tensors. Other models are returned unchanged.

  Args:
    values: The fields of a `config.json`.
    tensors: The tensors of its folder.
    where: The path of the file, for errors and the report.

  Returns:
    The fields of the config, and the tensors.

  Raises:
    UserError: The class does not generate text.
  """
  fields = text_config(values, where)
  if values.get('model_type') not in MULTIMODAL:
    return fields, tensors
  images = [name for name in tensors if name.startswith(_IMAGES)]
  kept: dict[str, Entry] = {}
  for name, entry in tensors.entries.items():
    if not name.startswith(_IMAGES):
      kept[_text_name(name)] = entry
  inner = values.get('text_config') or {}
  tied = {config[_TIED] for config in (values, inner) if config.get(_TIED) is not None}
  if len(tied) > 1:  # The configs contradict each other, so the tensors decide.
    fields[_TIED] = 'lm_head.weight' not in kept
  kinds = 'image and audio' if 'audio_config' in values else 'image'
  print(
    f'{where}: reads the language model of {values["model_type"]!r} and ignores {len(images)} '
    f'{kinds} tensors.',
    file=sys.stderr,
  )
  return fields, Tensors(kept)


def _text_name(name: str) -> str:
  for prefix, new in _PREFIXES.items():
    if name.startswith(prefix):
      return new + name.removeprefix(prefix)
  return name
