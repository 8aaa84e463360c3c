"""GGUF files: dequantized numbers, converted models and errors."""

import itertools
import tracemalloc

import jax
import numpy as np
import pytest

from tests.hub import ggufs
from tests.hub.ggufs import TINY, tiny_arrays
import tfm
from tfm.core import errors
from tfm.hub.gguf import Gguf
from tfm.hub.gguf.blocks import TYPES

RNG = np.random.default_rng(0)
KINDS = {t.name: number for number, t in TYPES.items()}
QUANTIZED = [t.name for t in TYPES.values() if t.dequantize is not None]


def _half(block, at):
  return np.frombuffer(block[at : at + 2], np.float16)[0].astype(np.float32)


def _q4_0(block, i):
  byte = block[2 + i % 16]
  return _half(block, 0) * np.float32((byte >> 4 if i >= 16 else byte & 15) - 8)


def _q8_0(block, i):
  return _half(block, 0) * np.float32(np.int8(np.uint8(block[2 + i])))


def _q4_k(block, i):
  """Return a group of 32 numbers with a 6-bit scale and minimum.

  Later groups have two of these bits in earlier bytes.
  """
  j, s = i // 32, block[4:16]
  factor = s[j] & 63 if j < 4 else (s[j + 4] & 15) | (s[j - 4] >> 6) << 4
  least = s[j + 4] & 63 if j < 4 else (s[j + 4] >> 4) | (s[j] >> 6) << 4
  byte = block[16 + 32 * (j // 2) + i % 32]
  q = byte >> 4 if j % 2 else byte & 15
  return _half(block, 0) * np.float32(factor) * np.float32(q) - _half(block, 2) * np.float32(least)


def _q6_k(block, i):
  """Return a half of 128 numbers: four runs of 32 with shared low and high bits."""
  half, run, l = i // 128, i // 32 % 4, i % 32
  low = block[64 * half + l + 32 * (run % 2)]
  low = low >> 4 if run >= 2 else low & 15
  high = block[128 + 32 * half + l] >> 2 * run & 3
  factor = np.int8(np.uint8(block[192 + i // 16]))
  return _half(block, 208) * np.float32(factor) * np.float32((low | high << 4) - 32)


def _blocks(name, rows):
  """Return random blocks with small scales."""
  kind = TYPES[KINDS[name]]
  blocks = RNG.integers(0, 256, (rows, kind.size), np.uint8)
  places = {
    'Q2_K': (80, 82),
    'Q3_K': (108,),
    'Q6_K': (208,),
    'Q4_0': (0,),
    'Q5_0': (0,),
    'Q8_0': (0,),
  }
  for at in places.get(name, (0, 2)):
    factors = RNG.uniform(1e-4, 1e-3, rows).astype(np.float16)
    blocks[:, at : at + 2] = factors[:, None].view(np.uint8)
  return blocks


@pytest.mark.parametrize('name', ['Q4_0', 'Q8_0', 'Q4_K', 'Q6_K'])
def test_blocks_match_the_format(name):
  by_definition = {'Q4_0': _q4_0, 'Q8_0': _q8_0, 'Q4_K': _q4_k, 'Q6_K': _q6_k}[name]
  kind, blocks = TYPES[KINDS[name]], _blocks(name, 3)
  wanted = [
    [by_definition(block.tolist() and bytes(block), i) for i in range(kind.numbers)]
    for block in blocks
  ]
  np.testing.assert_array_equal(kind.dequantize(blocks), np.array(wanted, np.float32))


@pytest.mark.oracle
@pytest.mark.parametrize('name', QUANTIZED)
def test_blocks_equal_the_gguf_package(name):
  import gguf

  kind = gguf.GGMLQuantizationType[name]
  assert (kind.value, gguf.GGML_QUANT_SIZES[kind]) == (KINDS[name], TYPES[KINDS[name]][1:3])
  blocks = _blocks(name, 200)
  np.testing.assert_array_equal(
    TYPES[KINDS[name]].dequantize(blocks), gguf.quants.dequantize(blocks, kind)
  )


def test_query_and_key_rows_are_reordered(tmp_path):
  arrays = tiny_arrays()
  changed = dict(arrays)
  for part, heads in (('q', 4), ('k', 2)):
    changed[f'blk.0.attn_{part}.weight'] = ggufs.permuted(
      arrays[f'blk.0.attn_{part}.weight'], heads
    )
  found = Gguf(ggufs.write(tmp_path / 'm.gguf', TINY, ggufs.plain(changed))).tensors()
  for ours, theirs in (('q', 'q_proj'), ('k', 'k_proj'), ('v', 'v_proj')):
    name = f'model.layers.0.self_attn.{theirs}.weight'
    np.testing.assert_array_equal(found[name], arrays[f'blk.0.attn_{ours}.weight'])
  m = tfm.load(tmp_path)  # A folder with one file.
  assert m.spec.d_model == 32
  assert m.spec.norm.eps == 1e-5
  kernel = m.params['segment_0']['block_0']['mixer']['q']['kernel']
  np.testing.assert_array_equal(
    np.asarray(kernel)[0].reshape(32, 32).T, arrays['blk.0.attn_q.weight']
  )


@pytest.mark.oracle
def test_files_of_the_gguf_package_load(tmp_path):
  import gguf

  arrays = tiny_arrays()
  writer = gguf.GGUFWriter(tmp_path / 'm.gguf', 'llama')
  for name, value in TINY.items():
    if name != 'general.architecture':
      (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(name, value)
  for name, array in arrays.items():
    if array.ndim == 1:
      writer.add_tensor(name, array)
      continue
    kind = gguf.GGMLQuantizationType.Q8_0 if 'ffn' in name else gguf.GGMLQuantizationType.F16
    writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
  for write in (
    writer.write_header_to_file,
    writer.write_kv_data_to_file,
    writer.write_tensors_to_file,
    writer.close,
  ):
    write()
  found = Gguf(tmp_path / 'm.gguf').tensors('float32')
  names = {f'{ours}.weight': theirs for theirs, ours in ggufs.stems('llama', 1).items()}
  for tensor in gguf.GGUFReader(tmp_path / 'm.gguf').tensors:
    wanted = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
    ours = found[f'{names[tensor.name]}.weight']
    heads = {'blk.0.attn_q.weight': 4, 'blk.0.attn_k.weight': 2}.get(tensor.name)
    np.testing.assert_array_equal(ggufs.permuted(ours, heads) if heads else ours, wanted)


def test_split_files_load_as_one_model(tmp_path):
  tensors = ggufs.plain(tiny_arrays())
  ggufs.write(tmp_path / 'whole.gguf', TINY, tensors)
  names = sorted(tensors)
  for number, part in enumerate((names[:5], names[5:]), 1):
    path = tmp_path / f'm-{number:05}-of-00002.gguf'
    ggufs.write(path, TINY if number == 1 else {'split.no': 1}, {n: tensors[n] for n in part})
  params = tfm.load(tmp_path / 'm-00001-of-00002.gguf').params
  jax.tree.map(np.testing.assert_array_equal, params, tfm.load(tmp_path / 'whole.gguf').params)
  with pytest.raises(
    errors.UserError, match=r'holds 2 GGUF files \(m-00001-of-00002.gguf, whole.gguf\)'
  ):
    tfm.load(tmp_path)
  (tmp_path / 'm-00002-of-00002.gguf').unlink()
  with pytest.raises(
    errors.UserError, match=r'm-00002-of-00002.gguf: is missing. Expected all 2 files'
  ):
    tfm.load(tmp_path / 'm-00001-of-00002.gguf')


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'general.architecture': 'mamba'},
      r"general.architecture: unknown value 'mamba'\. .*Known: gemma, gemma2",
    ),
    ({'llama.block_count': None}, 'llama.block_count: is missing'),
    ({'llama.expert_count': 8}, 'llama.expert_count=8: unknown, and may change the output'),
    ({'llama.logit_scale': 8.0}, 'llama.logit_scale=8.0: unknown, and may change the output'),
    ({'llama.expert_count': 0}, None),
    (
      {'llama.rope.dimension_count': 4, 'llama.attention.key_length': 8},
      'rope.dimension_count: is 4. Expected 8',
    ),
    ({'llama.rope.scaling.type': 'longrope'}, "rope.scaling.type: unknown value 'longrope'"),
    ({'llama.rope.scaling.type': 'linear'}, 'rope.scaling.factor: is missing'),
    ({'llama.attention.head_count': [4, 4]}, 'head_count: differs from layer to layer'),
    (
      {'tokenizer.ggml.model': 'rwkv', 'tokenizer.ggml.tokens': ['a']},
      "tokenizer.ggml.model: unknown value 'rwkv'",
    ),
    (
      {'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.tokens': ['a'], 'tokenizer.ggml.pre': 'odd'},
      "tokenizer.ggml.pre: unknown value 'odd'",
    ),
  ],
)
def test_unsupported_headers_raise_errors(tmp_path, fields, message):
  given = {n: v for n, v in (TINY | fields).items() if v is not None}
  path = ggufs.write(tmp_path / 'm.gguf', given, ggufs.plain(tiny_arrays()))
  if message is None:
    assert tfm.load(path).spec.d_model == 32
    return
  with pytest.raises(errors.UserError, match=message):
    tfm.load(path)


def test_unknown_tensor_types_raise_errors(tmp_path):
  tensors = ggufs.plain(tiny_arrays())
  tensors['output.weight'] = ((48, 32), 20, b'\0' * 48 * 18)
  with pytest.raises(
    errors.UserError, match=r"output.weight: unknown tensor type 'IQ4_NL'\. .*Known: BF16, F16, F32"
  ):
    tfm.load(ggufs.write(tmp_path / 'm.gguf', TINY, tensors))


def test_unknown_tensors_raise_errors(tmp_path):
  tensors = ggufs.plain(tiny_arrays() | {'blk.0.ssm_in.weight': np.ones(3)})
  with pytest.raises(errors.UserError, match=r'not known \(1\):\s+blk.0.ssm_in.weight \[3\]'):
    tfm.load(ggufs.write(tmp_path / 'm.gguf', TINY, tensors))


@pytest.mark.parametrize('size', [0, 3, 8, 20, 100, 700, -1])
def test_truncated_files_raise_errors(tmp_path, size):
  path = ggufs.write(tmp_path / 'm.gguf', TINY, ggufs.plain(tiny_arrays()))
  path.write_bytes(path.read_bytes()[:size])
  with pytest.raises(errors.UserError, match=r'is not a whole GGUF file|is not a GGUF file'):
    tfm.load(path)


@pytest.mark.parametrize(
  ('version', 'message'), [(1, 'file version 1'), (3 << 24, 'of the other byte order')]
)
def test_unsupported_versions_raise_errors(tmp_path, version, message):
  path = ggufs.write(tmp_path / 'm.gguf', TINY, {}, version)
  with pytest.raises(errors.UserError, match=message):
    tfm.load(path)


def test_duplicate_names_and_overruns_raise_errors(tmp_path):
  path = ggufs.write(tmp_path / 'm.gguf', TINY, ggufs.plain(tiny_arrays()))
  whole = path.read_bytes()
  path.write_bytes(
    whole.replace(b'blk.0.ffn_up.weight', b'blk.0.ffn_up.weigth').replace(b'attn_k', b'attn_q')
  )
  with pytest.raises(errors.UserError, match=r'the tensor blk.0.attn_q.weight is there twice'):
    tfm.load(path)
  path.write_bytes(whole[:8] + b'\xff' * 8 + whole[16:])
  with pytest.raises(errors.UserError, match='is not a whole GGUF file'):
    tfm.load(path)


@pytest.mark.parametrize('value', [0, 'x', 1.5])
def test_invalid_alignments_raise_errors(tmp_path, value):
  path = ggufs.write(
    tmp_path / 'm.gguf', TINY | {'general.alignment': value}, ggufs.plain(tiny_arrays())
  )
  with pytest.raises(errors.UserError, match='is not a whole GGUF file'):
    tfm.load(path)


def test_inconsistent_vocabularies_raise_errors(tmp_path):
  tokens = {
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.tokens': ['a', 'b'],
    'tokenizer.ggml.token_type': [1],
  }
  path = ggufs.write(tmp_path / 'm.gguf', TINY | tokens, ggufs.plain(tiny_arrays()))
  with pytest.raises(errors.UserError, match='has a tokenizer that cannot be read'):
    tfm.load(path)


def test_one_matrix_is_dequantized_at_a_time(tmp_path, monkeypatch):
  """Loading holds less than two matrices in memory in addition to the parameters."""
  fields = TINY | {
    'llama.embedding_length': 256,
    'llama.feed_forward_length': 2048,
    'llama.rope.dimension_count': 64,
  }
  arrays = {
    n: np.zeros([{32: 256, 16: 128, 64: 2048}.get(s, s) for s in a.shape])
    for n, a in tiny_arrays().items()
  }
  tensors = ggufs.plain({n: a for n, a in arrays.items() if a.ndim == 1})
  for name, array in arrays.items():
    if array.ndim == 2:
      tensors[name] = (array.shape, KINDS['Q4_K'], _blocks('Q4_K', array.size // 256).tobytes())
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


#: Model -> config of transformers, and header fields other than sizes.
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
    {'num_experts': 4, 'num_experts_per_tok': 2, 'moe_intermediate_size': D, 'norm_topk_prob': True}, {}
  ),
  'gemma': ('Gemma', {}, {}),
  'gemma2': ('Gemma2', {'sliding_window': 8, 'query_pre_attn_scalar': 64}, GEMMA2),
  'gemma3': (
    'Gemma3Text',
    {'num_hidden_layers': 6, 'sliding_window': 8, 'query_pre_attn_scalar': 64, 'rope_parameters': {
      'full_attention': {'rope_type': 'linear', 'factor': 8.0, 'rope_theta': 1e6},
      'sliding_attention': {'rope_type': 'default', 'rope_theta': 1e4},
    }},
    {'gemma3.attention.sliding_window': 8, 'gemma3.rope.freq_base': 1e6, 'gemma3.rope.scaling.type': 'linear',
     'gemma3.rope.scaling.factor': 8.0},
  ),
}  # fmt: skip


def _encoded(array, types):
  """Return the type, bytes and dequantized numbers of an array. Vectors are float32."""
  name = next(types) if array.ndim > 1 and len(array) > 1 else 'F32'
  kind = TYPES[KINDS[name]]
  if kind.dequantize is None:
    stored = array.astype(kind.dtype)
    return kind, stored.view(np.uint8).reshape(len(array), -1), stored.astype(np.float32)
  blocks = _blocks(name, array.size // kind.numbers)
  numbers = kind.dequantize(blocks).reshape(array.shape)
  return kind, blocks.reshape(len(array), -1), numbers


def _convert_experts(name, array, kind, tensors, numbers):
  """Write the experts of a layer. transformers has the gate and up projections in one tensor."""
  layer = name.split('.')[2]
  parts = {'ffn_down_exps': array}
  if 'gate_up' in name:
    parts = dict(zip(('ffn_gate_exps', 'ffn_up_exps'), np.split(array, 2, axis=1), strict=True))
  stored = [_encoded(part, iter([kind])) for part in parts.values()]
  for ours, part, (own, raw, _) in zip(parts, parts.values(), stored, strict=True):
    tensors[f'blk.{layer}.{ours}.weight'] = (part.shape, KINDS[own.name], raw.tobytes())
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
    wanted = theirs(torch.tensor(ids)).logits.numpy()
  assert np.abs(wanted).max() > 0.1
  np.testing.assert_allclose(
    tfm.apply(m.spec, m.params, input_ids=ids)['logits'], wanted, atol=2e-5, rtol=2e-4
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
  tensors['output.weight'] = ((48, 32), KINDS['Q8_0'], _blocks('Q8_0', 48).tobytes())
  path = ggufs.write(tmp_path / 'm.gguf', TINY, tensors)
  dtypes = lambda m: (m.params['head']['head']['kernel'].dtype, m.params['norm']['scale'].dtype)
  assert dtypes(tfm.load(path)) == ('bfloat16', 'float32')
  assert dtypes(tfm.load(path, dtype='float16')) == ('float16', 'float16')


def test_gguf_model_exports_as_a_published_folder(tmp_path):
  m = tfm.load(ggufs.write(tmp_path / 'm.gguf', TINY, ggufs.plain(tiny_arrays())))
  tfm.export_hf(m.spec, m.params, tmp_path / 'out')
  jax.tree.map(np.testing.assert_array_equal, tfm.load(tmp_path / 'out').params, m.params)
