"""GGUF files of whole models: memory, dtypes and logits."""

import itertools
import tracemalloc

import jax
import numpy as np
import pytest

from tests.hub import ggufs
from tests.hub.ggufs import KINDS, RNG, TINY, random_blocks, tiny_arrays
import tfm
from tfm.hub.gguf.blocks import TYPES


def test_one_matrix_is_dequantized_at_a_time(tmp_path, monkeypatch):
  """Loading holds less than two matrices in memory in addition to the parameters."""
  fields = TINY | {
    'llama.embedding_length': 256,
    'llama.feed_forward_length': 2048,
    'llama.rope.dimension_count': 64,
  }
  sizes = {32: 256, 16: 128, 64: 2048}
  arrays = {}
  for name, array in tiny_arrays().items():
    arrays[name] = np.zeros([sizes.get(s, s) for s in array.shape])
  tensors = ggufs.plain({n: a for n, a in arrays.items() if a.ndim == 1})
  for name, array in arrays.items():
    if array.ndim == 2:
      tensors[name] = (
        array.shape,
        KINDS['Q4_K'],
        random_blocks('Q4_K', array.size // 256).tobytes(),
      )
  path = ggufs.write(tmp_path / 'm.gguf', fields, tensors)
  monkeypatch.setattr('tfm.hub.gguf.names._CHUNK', 1 << 14)
  monkeypatch.setattr('tfm.hub.fill_params._CHUNK', 1 << 16)
  tfm.load(path, dtype='float32')
  tracemalloc.start()
  tfm.load(path, dtype='float32')
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  matrix = 256 * 2048 * 4
  assert matrix < peak < 2 * matrix, (peak, matrix)


D = 256
SIZES = {
  'vocab_size': 96, 'hidden_size': D, 'intermediate_size': D, 'num_hidden_layers': 2,
  'num_attention_heads': 4,
  'num_key_value_heads': 2, 'head_dim': 64, 'max_position_embeddings': 128, 'rms_norm_eps': 1e-5,
}  # fmt: skip
LLAMA3 = {
  'rope_type': 'llama3', 'rope_theta': 5e5, 'factor': 8.0, 'low_freq_factor': 1.0,
  'high_freq_factor': 4.0, 'original_max_position_embeddings': 8192,
}  # fmt: skip
GEMMA2 = {
  'gemma2.attention.sliding_window': 8, 'gemma2.attn_logit_softcapping': 50.0,
  'gemma2.final_logit_softcapping': 30.0,
}  # fmt: skip
#: Model -> config of transformers, and header fields other than sizes.
MODELS = {
  'llama': ('Llama', {}, {}),
  'llama_tied': ('Llama', {'tie_word_embeddings': True}, {}),
  'llama_bias': ('Llama', {'attention_bias': True, 'mlp_bias': True}, {}),
  'llama_scaled': ('Llama', {'rope_parameters': LLAMA3}, {'llama.rope.freq_base': 5e5}),
  'llama_linear': (
    'Llama',
    {'rope_parameters': {'rope_type': 'linear', 'rope_theta': 1e4, 'factor': 4.0}},
    {'llama.rope.scaling.type': 'linear', 'llama.rope.scaling.factor': 4.0},
  ),
  'qwen2': ('Qwen2', {'rope_theta': 1e6}, {'qwen2.rope.freq_base': 1e6}),
  'qwen3': ('Qwen3', {}, {}),
  'llama_experts': ('Mixtral', {'num_local_experts': 4}, {'llama.rope.freq_base': 1e6}),
  'qwen2moe': (
    'Qwen2Moe',
    {'num_experts': 4, 'moe_intermediate_size': D, 'shared_expert_intermediate_size': 2 * D}, {}
  ),
  'qwen3moe': (
    'Qwen3Moe',
    {
      'num_experts': 4, 'num_experts_per_tok': 2, 'moe_intermediate_size': D,
      'norm_topk_prob': True,
    },
    {},
  ),
  'gemma': ('Gemma', {}, {}),
  'gemma2': ('Gemma2', {'sliding_window': 8, 'query_pre_attn_scalar': 64}, GEMMA2),
  'gemma3': (
    'Gemma3Text',
    {'num_hidden_layers': 6, 'sliding_window': 8, 'query_pre_attn_scalar': 64, 'rope_parameters': {
      'full_attention': {'rope_type': 'linear', 'factor': 8.0, 'rope_theta': 1e6},
      'sliding_attention': {'rope_type': 'default', 'rope_theta': 1e4},
    }},
    {
      'gemma3.attention.sliding_window': 8, 'gemma3.rope.freq_base': 1e6,
      'gemma3.rope.scaling.type': 'linear', 'gemma3.rope.scaling.factor': 8.0,
    },
  ),
}  # fmt: skip


def _encoded(array, types):
  """Return the type, bytes and dequantized numbers of an array. Vectors are float32."""
  name = next(types) if array.ndim > 1 and len(array) > 1 else 'F32'
  kind = TYPES[KINDS[name]]
  if kind.dequantize is None:
    stored = array.astype(kind.dtype)
    return kind, stored.view(np.uint8).reshape(len(array), -1), stored.astype(np.float32)
  blocks = random_blocks(name, array.size // kind.numbers)
  numbers = kind.dequantize(blocks).reshape(array.shape)
  return kind, blocks.reshape(len(array), -1), numbers


def _convert_experts(name, array, kind, tensors, numbers):
  """Write the experts of a layer. transformers has the gate and up projections in one tensor."""
  layer = name.split('.')[2]
  parts = {'ffn_down_exps': array}
  if 'gate_up' in name:
    parts = dict(zip(('ffn_gate_exps', 'ffn_up_exps'), np.split(array, 2, axis=1), strict=True))
  stored = [_encoded(part, iter([kind])) for part in parts.values()]
  for ours, part, (tensor_type, raw, _) in zip(parts, parts.values(), stored, strict=True):
    tensors[f'blk.{layer}.{ours}.weight'] = (part.shape, KINDS[tensor_type.name], raw.tobytes())
  numbers[name] = np.concatenate([each for *_, each in stored], axis=1)


def _convert(theirs, architecture, path, extra):
  """Write a model of transformers as llama.cpp does, each matrix with another type.

  The model gets the dequantized numbers.
  """
  import torch

  config, types = (
    theirs.config,
    itertools.cycle(['F16', 'Q8_0', 'Q4_K', 'BF16', 'Q6_K', 'Q4_0', 'F32', 'Q5_0']),
  )
  names, tensors, numbers = ggufs.names_of(architecture, config.num_hidden_layers), {}, {}
  heads = {'attn_q': config.num_attention_heads, 'attn_k': config.num_key_value_heads}
  for name, tensor in theirs.state_dict().items():
    if name == 'lm_head.weight' and config.tie_word_embeddings:
      continue
    array, ours = tensor.numpy(), names.get(name, name)
    if 'experts.' in name:
      _convert_experts(name, array, next(types), tensors, numbers)
      continue
    gemma_norm = architecture.startswith('gemma') and ours.endswith('norm.weight')
    kind, raw, numbers[name] = _encoded(array + 1 if gemma_norm else array, types)
    if gemma_norm:
      numbers[name] = numbers[name] - 1
    part = ours.split('.')[-2]
    raw = ggufs.permuted(raw, heads[part]) if architecture == 'llama' and part in heads else raw
    tensors[ours] = (array.shape, KINDS[kind.name], raw.tobytes())
  if config.rope_parameters.get('rope_type') == 'llama3':
    plain = 1 / 5e5 ** (np.arange(0, 64, 2) / 64)
    tensors |= ggufs.plain({'rope_freqs.weight': plain / theirs.model.rotary_emb.inv_freq.numpy()})
  theirs.load_state_dict({n: torch.tensor(a) for n, a in numbers.items()}, strict=False)
  return ggufs.write(path, ggufs.sizes(architecture, config) | extra, tensors)


@pytest.mark.oracle
@pytest.mark.large(
  when=lambda model: model in ('llama_tied', 'llama_bias', 'qwen3', 'gemma', 'qwen2moe')
)
@pytest.mark.parametrize('model', MODELS)
def test_logits_equal_transformers(tmp_path, model):
  import torch
  import transformers

  stem, changes, extra = MODELS[model]
  architecture = model.partition('_')[0]
  torch.manual_seed(0)
  config = getattr(transformers, f'{stem}Config')(
    **{**SIZES, 'attn_implementation': 'eager', **changes}
  )
  theirs = getattr(transformers, f'{stem.removesuffix("Text")}ForCausalLM')(config).eval()
  with torch.no_grad():
    for p in theirs.parameters():
      p.add_(0.05 * torch.randn_like(p))
  if hasattr(config, 'num_experts_per_tok'):
    counts = {'expert_count': 4, 'expert_used_count': config.num_experts_per_tok}
    extra = extra | {f'{architecture}.{name}': count for name, count in counts.items()}
  m = tfm.load(_convert(theirs, architecture, tmp_path / 'm.gguf', extra), dtype='float32')
  ids = RNG.integers(0, 96, (2, 24))
  with torch.no_grad():
    expected = theirs(torch.tensor(ids)).logits.numpy()
  assert np.abs(expected).max() > 0.1
  np.testing.assert_allclose(
    tfm.apply(m.spec, m.params, input_ids=ids)['logits'], expected, atol=2e-5, rtol=2e-4
  )


def test_unknown_rope_factors_become_longrope(tmp_path):
  factors = np.linspace(1, 5, 4).astype(np.float32)
  tensors = ggufs.plain(tiny_arrays() | {'rope_freqs.weight': factors})
  rope = (
    tfm.load(ggufs.write(tmp_path / 'm.gguf', TINY, tensors))
    .spec.segments[0]
    .pattern[0]
    .mixer.relative
  )
  frequency = 1 / 1e4 ** (np.arange(0, 8, 2) / 8)
  scaled, attention = rope.scaling.scale(frequency, 1e4)
  np.testing.assert_allclose(scaled, frequency / factors, rtol=1e-6)
  assert attention == 1


def test_float_tensors_keep_their_dtype(tmp_path):
  tensors = ggufs.plain(tiny_arrays())
  tensors['output.weight'] = ((48, 32), KINDS['Q8_0'], random_blocks('Q8_0', 48).tobytes())
  path = ggufs.write(tmp_path / 'm.gguf', TINY, tensors)
  dtypes = lambda m: (m.params['head']['head']['kernel'].dtype, m.params['norm']['scale'].dtype)
  assert dtypes(tfm.load(path)) == ('bfloat16', 'float32')
  assert dtypes(tfm.load(path, dtype='float16')) == ('float16', 'float16')


def test_gguf_model_exports_as_a_published_folder(tmp_path):
  m = tfm.load(ggufs.write(tmp_path / 'm.gguf', TINY, ggufs.plain(tiny_arrays())))
  tfm.export_hf(m.spec, m.params, tmp_path / 'out')
  jax.tree.map(np.testing.assert_array_equal, tfm.load(tmp_path / 'out').params, m.params)
