"""Convert the header of a GGUF file to the fields of a config.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfm.core import errors
from tfm.hub.gguf.reader import Info
from tfm.zoo.layers import GLOBAL, LOCAL, choose

#: `general.architecture` -> (model_type, class). In llama.cpp, llama includes Mistral's models.
ARCHITECTURES = {
  'llama': ('llama', 'LlamaForCausalLM'),
  'qwen2': ('qwen2', 'Qwen2ForCausalLM'),
  'qwen3': ('qwen3', 'Qwen3ForCausalLM'),
  'qwen2moe': ('qwen2_moe', 'Qwen2MoeForCausalLM'),
  'qwen3moe': ('qwen3_moe', 'Qwen3MoeForCausalLM'),
  'gemma': ('gemma', 'GemmaForCausalLM'),
  'gemma2': ('gemma2', 'Gemma2ForCausalLM'),
  'gemma3': ('gemma3_text', 'Gemma3ForCausalLM'),
}

_FIELDS = {
  'context_length': 'max_position_embeddings',
  'block_count': 'num_hidden_layers',
  'embedding_length': 'hidden_size',
  'feed_forward_length': 'intermediate_size',
  'attention.head_count': 'num_attention_heads',
  'attention.layer_norm_rms_epsilon': 'rms_norm_eps',
  'attn_logit_softcapping': 'attn_logit_softcapping',
  'final_logit_softcapping': 'final_logit_softcapping',
  'attention.sliding_window': 'sliding_window',
}
_NEEDED = tuple(_FIELDS)[:6]

#: Fields that are read elsewhere in this file or do not affect the model.
_KNOWN = frozenset((
  *_FIELDS, 'vocab_size', 'attention.head_count_kv', 'attention.key_length',
  'attention.value_length', 'attention.key_length_swa', 'attention.value_length_swa',
  'rope.dimension_count', 'rope.dimension_count_swa', 'rope.freq_base', 'rope.freq_base_swa',
  'rope.scaling.type', 'rope.scaling.factor', 'rope.scale_linear',
  'rope.scaling.original_context_length', 'rope.scaling.finetuned',
  'attention.sliding_window_pattern', 'tensor_data_layout', 'expert_feed_forward_length',
  'expert_shared_feed_forward_length',
))  # fmt: skip

#: Fields of mixture-of-experts models.
_EXPERTS = frozenset(('expert_count', 'expert_used_count'))

#: (architecture, layers) of Gemma 2 27B and Gemma 3 27B, which scale attention by width / heads.
#: The header has no field for this, so llama.cpp also uses the number of layers.
_BY_WIDTH = {('gemma2', 46), ('gemma3', 62)}

#: Rotary frequencies of Llama 3.1: https://arxiv.org/abs/2407.21783.
_LOW, _HIGH, _ORIGINAL = 1.0, 4.0, 8192


def hugging_face_config(
  path: Path, fields: Mapping[str, Any], tensors: Mapping[str, Info]
) -> dict[str, Any]:
  """Return the fields of the config.json of the model in a GGUF file.

  Args:
    path: The file, for errors.
    fields: The values of the header.
    tensors: The tensors of the file, which set sizes that the header lacks.

  Returns:
    The fields of the config.

  Raises:
    UserError: The architecture is not supported, a field is missing, or an unknown field may change
      the output.
  """
  architecture = fields.get('general.architecture')
  if architecture not in ARCHITECTURES:
    raise errors.UserError(
      f'{path}: general.architecture: {errors.unknown("value", architecture, ARCHITECTURES)}'
    )
  prefix = f'{architecture}.'
  header = {n.removeprefix(prefix): v for n, v in fields.items() if n.startswith(prefix)}
  where = f'{path}: {prefix}'
  _check(where, header, tensors)
  model_type, cls = ARCHITECTURES[architecture]
  if architecture == 'llama' and header.get('expert_count'):
    model_type, cls = 'mixtral', 'MixtralForCausalLM'
  elif architecture == 'llama' and header.get('attention.sliding_window'):
    model_type, cls = 'mistral', 'MistralForCausalLM'
  values = {name: header[field] for field, name in _FIELDS.items() if field in header}
  heads, width = values['num_attention_heads'], values['hidden_size']
  head_dim = header.get('attention.key_length', header.get('rope.dimension_count', width // heads))
  values |= {
    'model_type': model_type,
    'architectures': [cls],
    'vocab_size': tensors['token_embd.weight'].shape[0],
    'num_key_value_heads': header.get('attention.head_count_kv', heads),
    'head_dim': head_dim,
    'tie_word_embeddings': 'output.weight' not in tensors,
  }
  if architecture in ('gemma2', 'gemma3'):
    by_width = (architecture, values['num_hidden_layers']) in _BY_WIDTH
    values['query_pre_attn_scalar'] = width // heads if by_width else head_dim
  _check_heads(where, header, head_dim)
  values |= (
    _experts(where, architecture, header, tensors)
    | _biases(architecture, tensors)
    | _windows(where, architecture, header, values)
  )
  rope = _rope(where, header, tensors, head_dim, values['max_position_embeddings'])
  values['rope_parameters'] = rope if architecture != 'gemma3' else _two_ropes(header, rope)
  return {n: _plain(v) for n, v in values.items()} | _tokens(fields)


def _check(where: str, header: Mapping[str, Any], tensors: Mapping[str, Info]) -> None:
  if missing := [n for n in _NEEDED if n not in header]:
    raise errors.UserError(f'{where}{missing[0]}: is missing. Expected this field in the header.')
  if 'token_embd.weight' not in tensors:
    raise errors.UserError(f'{where}: has no tensor token_embd.weight. Expected a complete model.')
  known = _KNOWN | (_EXPERTS if 'blk.0.ffn_gate_exps.weight' in tensors else set())
  unknown = [f'{n}={v!r}' for n, v in header.items() if n not in known and not _is_off(v)]
  if unknown:
    raise errors.UserError(
      f'{where}{", ".join(unknown[:8])}: unknown, and may change the output. Expected only the '
      'fields that llama.cpp writes for this architecture.'
    )
  lists = [n for n in _NEEDED if isinstance(header[n], np.ndarray)]
  if lists:
    raise errors.UserError(f'{where}{lists[0]}: differs between layers. Expected one number.')


def _is_off(value: Any) -> bool:
  return isinstance(value, bool | int | float) and not value


def _check_heads(where: str, header: Mapping[str, Any], head_dim: int) -> None:
  """Raise a UserError if keys, values or rotary dimensions differ from the head dimension."""
  names = ('attention.value_length', 'attention.key_length_swa', 'attention.value_length_swa')
  for name in (*names, 'rope.dimension_count', 'rope.dimension_count_swa'):
    if header.get(name, head_dim) != head_dim:
      raise errors.UserError(
        f'{where}{name}: is {header[name]}. Expected {head_dim}, the head dimension.'
      )


def _experts(
  where: str, architecture: str, header: Mapping[str, Any], tensors: Mapping[str, Info]
) -> dict[str, Any]:
  """Return the fields of a mixture of experts, with the sizes of its tensors."""
  if not (count := header.get('expert_count')):
    return {}
  if architecture not in ('llama', 'qwen2moe', 'qwen3moe'):
    raise errors.UserError(f'{where}expert_count: is {count}. Expected none for this architecture.')
  if 'expert_used_count' not in header:
    raise errors.UserError(
      f'{where}expert_used_count: is missing. Expected a number, as expert_count={count}.'
    )
  sizes = {'num_experts_per_tok': header['expert_used_count']}
  if architecture == 'llama':
    return sizes | {'num_local_experts': count}
  sizes |= {
    'num_experts': count,
    'moe_intermediate_size': tensors['blk.0.ffn_gate_exps.weight'].shape[1],
  }
  if (shared := tensors.get('blk.0.ffn_gate_shexp.weight')) is not None:
    sizes['shared_expert_intermediate_size'] = shared.shape[0]
  # The header has no field for this. It is fixed per architecture in llama.cpp.
  return sizes | {'norm_topk_prob': architecture == 'qwen3moe'}


def _biases(architecture: str, tensors: Mapping[str, Info]) -> dict[str, Any]:
  if architecture != 'llama':
    return {}
  bias = {
    'attention_bias': 'blk.0.attn_output.bias' in tensors,
    'mlp_bias': 'blk.0.ffn_down.bias' in tensors,
  }
  return {name: True for name, is_present in bias.items() if is_present}


def _windows(
  where: str, architecture: str, header: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, Any]:
  """Return the layer types of Gemma 2 and 3, if the header has them."""
  pattern = header.get('attention.sliding_window_pattern')
  if pattern is None:
    return {}
  if architecture not in ('gemma2', 'gemma3'):
    raise errors.UserError(f'{where}attention.sliding_window_pattern: is {pattern}. Expected none.')
  if isinstance(pattern, int):
    pattern = [(i + 1) % pattern for i in range(values['num_hidden_layers'])]
  return {'layer_types': choose(pattern, LOCAL, GLOBAL)}


def _rope(
  where: str, header: Mapping[str, Any], tensors: Mapping[str, Info], head_dim: int, length: int
) -> dict[str, Any]:
  base = {'rope_theta': header.get('rope.freq_base', 10_000.0)}
  kind = header.get('rope.scaling.type', 'linear' if 'rope.scale_linear' in header else 'none')
  if (info := tensors.get('rope_freqs.weight')) is not None:
    if kind not in ('none', ''):
      raise errors.UserError(
        f'{where}rope.scaling.type: is {kind}, and the file has rope_freqs.weight, too. Expected '
        'only one.'
      )
    raw = np.frombuffer(info.file.map, np.uint8, info.nbytes, info.begin)
    factors = raw.view(info.type.dtype or np.float32).astype(np.float64)
    return base | _factors(factors, base, head_dim, length)
  if kind in ('none', ''):
    return base | {'rope_type': 'default'}
  if kind not in ('linear', 'yarn'):
    raise errors.UserError(
      f'{where}rope.scaling.type: {errors.unknown("value", kind, ("none", "linear", "yarn"))}'
    )
  factor = header.get('rope.scaling.factor', header.get('rope.scale_linear'))
  if factor is None:
    raise errors.UserError(
      f'{where}rope.scaling.factor: is missing. Expected a number for rope.scaling.type={kind}.'
    )
  scaling = base | {'rope_type': kind, 'factor': factor}
  original = header.get('rope.scaling.original_context_length')
  if kind == 'yarn' and original:
    scaling['original_max_position_embeddings'] = original
  return scaling


def _factors(
  pairs: np.ndarray, base: Mapping[str, Any], head_dim: int, length: int
) -> dict[str, Any]:
  """Return the Llama 3.1 or LongRoPE scaling that divides rotary frequencies by `pairs`."""
  factor = float(pairs.max())
  wavelength = 2 * np.pi * base['rope_theta'] ** (np.arange(0, head_dim, 2) / head_dim)
  smooth = np.clip((_ORIGINAL / wavelength - _LOW) / (_HIGH - _LOW), 0, 1)
  if np.allclose(pairs, 1 / ((1 - smooth) / factor + smooth), rtol=1e-5):
    return {
      'rope_type': 'llama3', 'factor': factor, 'low_freq_factor': _LOW, 'high_freq_factor': _HIGH,
      'original_max_position_embeddings': _ORIGINAL,
    }  # fmt: skip
  factors = pairs.tolist()
  return {
    'rope_type': 'longrope', 'short_factor': factors, 'long_factor': factors, 'factor': 1.0,
    'attention_factor': 1.0, 'original_max_position_embeddings': length,
  }  # fmt: skip


def _two_ropes(header: Mapping[str, Any], rope: dict[str, Any]) -> dict[str, Any]:
  local = {'rope_type': 'default', 'rope_theta': header.get('rope.freq_base_swa', 10_000.0)}
  return {'full_attention': rope, 'sliding_attention': local}


def _tokens(fields: Mapping[str, Any]) -> dict[str, Any]:
  """Return the ids of special tokens. The ends of a chat turn or message also end a text."""
  found = {}
  names = {'bos': 'bos_token_id', 'padding': 'pad_token_id', 'unknown': 'unk_token_id'}
  for name, field in names.items():
    if (token := fields.get(f'tokenizer.ggml.{name}_token_id')) is not None:
      found[field] = _plain(token)
  ends = []
  for name in ('eos', 'eot', 'eom'):
    token = _plain(fields.get(f'tokenizer.ggml.{name}_token_id'))
    if token is not None and token not in ends:
      ends.append(token)
  if ends:
    found['eos_token_id'] = ends[0] if len(ends) == 1 else ends
  return found


def _plain(value: Any) -> Any:
  """Return a value in Python types."""
  return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
