"""GGUF files: dequantized numbers, split files and errors."""

import jax
import numpy as np
import pytest

from tests.hub import ggufs
from tests.hub.ggufs import KINDS, TINY, random_blocks, tiny_arrays
import tfm
from tfm.core import errors
from tfm.hub.gguf import Gguf
from tfm.hub.gguf.blocks import TYPES

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


@pytest.mark.parametrize('name', ['Q4_0', 'Q8_0', 'Q4_K', 'Q6_K'])
def test_blocks_match_the_format(name):
  by_definition = {'Q4_0': _q4_0, 'Q8_0': _q8_0, 'Q4_K': _q4_k, 'Q6_K': _q6_k}[name]
  kind, blocks = TYPES[KINDS[name]], random_blocks(name, 3)
  expected = [
    [by_definition(block.tolist() and bytes(block), i) for i in range(kind.numbers)]
    for block in blocks
  ]
  np.testing.assert_array_equal(kind.dequantize(blocks), np.array(expected, np.float32))


@pytest.mark.oracle
@pytest.mark.parametrize('name', QUANTIZED)
def test_blocks_equal_the_gguf_package(name):
  import gguf

  kind = gguf.GGMLQuantizationType[name]
  assert (kind.value, gguf.GGML_QUANT_SIZES[kind]) == (KINDS[name], TYPES[KINDS[name]][1:3])
  blocks = random_blocks(name, 200)
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
    expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
    ours = found[f'{names[tensor.name]}.weight']
    heads = {'blk.0.attn_q.weight': 4, 'blk.0.attn_k.weight': 2}.get(tensor.name)
    np.testing.assert_array_equal(ggufs.permuted(ours, heads) if heads else ours, expected)


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
    ({'llama.attention.head_count': [4, 4]}, 'head_count: differs between layers'),
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
  with pytest.raises(errors.UserError, match=r'unknown \(1\):\s+blk.0.ssm_in.weight \[3\]'):
    tfm.load(ggufs.write(tmp_path / 'm.gguf', TINY, tensors))


@pytest.mark.parametrize('size', [0, 3, 8, 20, 100, 700, -1])
def test_truncated_files_raise_errors(tmp_path, size):
  path = ggufs.write(tmp_path / 'm.gguf', TINY, ggufs.plain(tiny_arrays()))
  path.write_bytes(path.read_bytes()[:size])
  with pytest.raises(errors.UserError, match=r'is not a valid GGUF file|is not a GGUF file'):
    tfm.load(path)


@pytest.mark.parametrize(
  ('version', 'message'), [(1, 'has GGUF version 1'), (3 << 24, 'is big-endian')]
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
  with pytest.raises(errors.UserError, match=r'duplicate tensor blk.0.attn_q.weight'):
    tfm.load(path)
  path.write_bytes(whole[:8] + b'\xff' * 8 + whole[16:])
  with pytest.raises(errors.UserError, match='is not a valid GGUF file'):
    tfm.load(path)


@pytest.mark.parametrize('value', [0, 'x', 1.5])
def test_invalid_alignments_raise_errors(tmp_path, value):
  path = ggufs.write(
    tmp_path / 'm.gguf', TINY | {'general.alignment': value}, ggufs.plain(tiny_arrays())
  )
  with pytest.raises(errors.UserError, match='is not a valid GGUF file'):
    tfm.load(path)


def test_inconsistent_vocabularies_raise_errors(tmp_path):
  tokens = {
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.tokens': ['a', 'b'],
    'tokenizer.ggml.token_type': [1],
  }
  path = ggufs.write(tmp_path / 'm.gguf', TINY | tokens, ggufs.plain(tiny_arrays()))
  with pytest.raises(errors.UserError, match='the tokenizer cannot be read'):
    tfm.load(path)
