"""MXFP4 and FP8 checkpoints: numbers, memory and errors."""

import dataclasses
import gc
import json
import tracemalloc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import tfm
from tfm import hub, zoo
from tfm.core import errors
from tfm.hub.quantized import dequantized
from tfm.hub.tensors import SAFE, Tensors
from tfm.model.transformer import param_shapes
from tfm.zoo import gpt_oss

RNG = np.random.default_rng(0)


def model(name, **experts):
  """Return a small model, with optional fields for its experts."""
  spec = zoo.tiny(zoo.get(name))
  changed = lambda b: (
    b if not hasattr(b.ffn, 'expert') else dataclasses.replace(b, ffn=_wider(b.ffn, experts))
  )
  segments = tuple(
    dataclasses.replace(s, pattern=tuple(map(changed, s.pattern))) for s in spec.segments
  )
  return dataclasses.replace(spec, segments=segments, mtp=None)


def _wider(moe, fields):
  return dataclasses.replace(moe, expert=dataclasses.replace(moe.expert, **fields))


def rewritten(folder, new, quantization, change):
  """Return a copy of a folder with other tensors and a `quantization_config`.

  Args:
    folder: The folder to copy.
    new: The new folder.
    quantization: The `quantization_config`, or None.
    change: Changes the tensors by name in place.

  Returns:
    The new folder.
  """
  new.mkdir()
  arrays = safetensors.numpy.load_file(folder / SAFE)
  change(arrays)
  safetensors.numpy.save_file(arrays, new / SAFE, metadata={'format': 'pt'})
  config = json.loads((folder / 'config.json').read_text())
  config |= {'quantization_config': quantization} if quantization else {}
  (new / 'config.json').write_text(json.dumps(config))
  return new


def same(a, b):
  jax.tree.map(
    lambda x, y: np.testing.assert_array_equal(
      np.asarray(x, np.float32), np.asarray(y, np.float32)
    ),
    a,
    b,
  )


def _packed(arrays):
  """Replace the matrices of experts by random MXFP4 with a wide range of scales."""
  for name in [n for n in arrays if n.endswith(('experts.gate_up_proj', 'experts.down_proj'))]:
    experts, inputs, outs = arrays.pop(name).shape
    arrays[f'{name}_blocks'] = RNG.integers(0, 256, (experts, outs, inputs // 32, 16), np.uint8)
    arrays[f'{name}_scales'] = RNG.integers(110, 130, (experts, outs, inputs // 32), np.uint8)


MXFP4 = {'quant_method': 'mxfp4', 'modules_to_not_convert': ['model.layers.*.self_attn', 'lm_head']}


@pytest.fixture(scope='module')
def packed(tmp_path_factory):
  """Return a GPT-OSS folder with MXFP4 experts (64 -> 2 x 96 -> 64), the rest in bfloat16."""
  path = tmp_path_factory.mktemp('packed')
  spec = dataclasses.replace(model('gpt-oss-20b', d_ff=96), d_model=64)
  params = jax.tree.map(
    lambda x: RNG.standard_normal(x.shape).astype(jnp.bfloat16), param_shapes(spec)
  )
  hub.export_hf(spec, params, path / 'plain')
  return rewritten(path / 'plain', path / 'packed', MXFP4, _packed)


def test_mxfp4_experts_follow_the_format(packed):
  """E2M1 numbers have an exponent bias of 1, the scale of 32 numbers a bias of 127."""
  found = hub.load(packed).params
  arrays = safetensors.numpy.load_file(packed / SAFE)
  at = 'model.layers.1.mlp.experts.gate_up_proj'
  e, out, i = 1, 7, 41  # The odd outputs are the up projection.
  byte = int(arrays[f'{at}_blocks'][e, out, i // 32, i % 32 // 2])
  nibble = byte >> 4 if i % 2 else byte & 15
  sign, exponent, mantissa = nibble >> 3, nibble >> 1 & 3, nibble & 1
  size = (1 + mantissa / 2) * 2.0 ** (exponent - 1) if exponent else mantissa / 2
  expected = (-1) ** sign * size * 2.0 ** (int(arrays[f'{at}_scales'][e, out, i // 32]) - 127)
  kernel = found['segment_0']['block_1']['ffn']['expert']['up']['kernel']
  assert kernel.dtype == jnp.bfloat16
  assert float(kernel[0, e, i, out // 2]) == expected
  same(hub.load(packed, dtype='float32').params, found)  # Both are exact.


@pytest.mark.oracle
def test_mxfp4_experts_match_transformers(packed, tmp_path):
  import torch
  import transformers
  from transformers.integrations.mxfp4 import convert_moe_packed_tensors

  config = transformers.Mxfp4Config(dequantize=True)
  theirs = transformers.GptOssForCausalLM.from_pretrained(
    packed, quantization_config=config, dtype=torch.float32
  )
  arrays = {n: p.detach().numpy() for n, p in theirs.state_dict().items()}
  kept = safetensors.numpy.load_file(packed / SAFE)
  for name in [n.removesuffix('_blocks') for n in kept if n.endswith('_blocks')]:
    blocks, scales = (torch.tensor(kept[f'{name}_{k}']) for k in ('blocks', 'scales'))
    np.testing.assert_array_equal(
      arrays[name], convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    )

  def plain(found):
    found.clear()
    found.update({n: np.ascontiguousarray(a) for n, a in arrays.items()})

  folder = rewritten(packed, tmp_path / 'plain', None, plain)
  config = json.loads((folder / 'config.json').read_text())
  del config['quantization_config']
  (folder / 'config.json').write_text(json.dumps(config))
  same(hub.load(packed, dtype='float32').params, hub.load(folder).params)


def test_mxfp4_experts_load_onto_a_mesh_and_export(packed, tmp_path):
  from tfm.train.mesh import Mesh
  from tfm.train.shard import make_mesh

  m = hub.load(packed)
  same(hub.load(packed, mesh=make_mesh(Mesh(data=1, fsdp=4, tensor=2))).params, m.params)
  hub.export_hf(m.spec, m.params, tmp_path / 'plain')
  assert 'quantization_config' not in json.loads((tmp_path / 'plain' / 'config.json').read_text())
  same(hub.load(tmp_path / 'plain').params, m.params)


def test_one_expert_is_dequantized_at_a_time(tmp_path, monkeypatch):
  """Temporary memory is less than five of 16 experts."""
  spec = dataclasses.replace(model('gpt-oss-20b', d_ff=256), d_model=256)
  block = spec.segments[0].pattern[0]
  one = dataclasses.replace(block, ffn=dataclasses.replace(block.ffn, experts=16))
  spec = dataclasses.replace(
    spec, segments=(dataclasses.replace(spec.segments[0], pattern=(one,), repeats=1),)
  )
  hub.export_hf(
    spec, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), param_shapes(spec)), tmp_path / 'plain'
  )
  folder = rewritten(tmp_path / 'plain', tmp_path / 'packed', MXFP4, _packed)
  monkeypatch.setattr('tfm.hub.fill_params._CHUNK', 1 << 16)
  monkeypatch.setattr('tfm.hub.quantized.mxfp4._CHUNK', 1 << 13)
  hub.load(folder, dtype='float32')  # Exclude the memory for compilation.
  gc.collect()
  tracemalloc.start()
  m = hub.load(folder, dtype='float32')
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  largest = (
    max(a.nbytes for a in jax.tree.leaves(m.params)) * 2
  )  # transformers has the gate and up projections in one tensor.
  expert = largest // 16
  assert expert < peak < 5 * expert, (peak, expert)


FP8 = {
  'quant_method': 'fp8',
  'fmt': 'e4m3',
  'activation_scheme': 'dynamic',
  'weight_block_size': [16, 24],
}


def _kept(name):
  """Return the float8 weights of DeepSeek-V3: matrices of layers except routers."""
  return name.endswith(('proj.weight', 'kv_a_proj_with_mqa.weight')) and '.layers.' in name


def _scaled(arrays, block, other=None):
  """Replace weights by random FP8 with a scale per block; `other` gets the numbers."""
  for name in [n for n in arrays if _kept(n)]:
    shape = arrays[name].shape
    height, width = block or shape
    grid = -(-shape[0] // height), -(-shape[1] // width)
    numbers = RNG.standard_normal(shape).astype(ml_dtypes.float8_e4m3fn)
    scale = RNG.uniform(0.01, 3, grid).astype(np.float32)
    arrays[name], arrays[f'{name}_scale_inv'] = numbers, scale if block else scale.reshape(1)
    if other is not None:
      wide = np.kron(scale, np.ones((height, width), np.float32))[: shape[0], : shape[1]]
      other[name] = numbers.astype(np.float32) * wide


@pytest.fixture(scope='module')
def deepseek(tmp_path_factory):
  path = tmp_path_factory.mktemp('deepseek') / 'start'
  spec = model('deepseek-v3')
  hub.export_hf(spec, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), param_shapes(spec)), path)
  return path


@pytest.mark.parametrize('block', [(16, 24), None])
def test_fp8_weights_are_scaled_by_block(deepseek, tmp_path, block):
  """Sizes are not multiples of the block size, so the last blocks are smaller.

  Without blocks, a matrix has a single scale.
  """
  expected = {}
  quantization = FP8 | {'weight_block_size': block and list(block)}
  folder = rewritten(
    deepseek, tmp_path / 'fp8', quantization, lambda arrays: _scaled(arrays, block, expected)
  )
  plain = rewritten(deepseek, tmp_path / 'plain', None, lambda arrays: arrays.update(expected))
  found = hub.load(folder, dtype='float32')
  same(found.params, hub.load(plain).params)
  shapes = [a.shape for a in expected.values()]
  assert block is None or any(rows % 16 and columns % 24 for rows, columns in shapes)
  # The config sets the dtype of quantized weights. Others keep the stored dtype.
  path = folder / 'config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {'dtype': 'bfloat16'}))
  half = hub.load(folder).params
  kernel = lambda p: p['segment_0']['block_0']['mixer']['o']['kernel']
  assert kernel(half).dtype == jnp.bfloat16
  assert half['embed']['table'].dtype == jnp.float32
  np.testing.assert_array_equal(kernel(half), kernel(found.params).astype(jnp.bfloat16))


@pytest.mark.oracle
@pytest.mark.parametrize('block', [(16, 24), (13, 29), (40, 50)])
def test_fp8_weights_match_transformers(block):
  import torch
  from transformers.integrations.finegrained_fp8 import _dequantize_fp8_weight

  name, arrays = 'model.layers.0.mlp.up_proj.weight', {}
  arrays[name] = np.zeros((40, 50), np.float32)
  _scaled(arrays, block)
  numbers = torch.tensor(arrays[name].view(np.uint8)).view(torch.float8_e4m3fn)
  theirs = _dequantize_fp8_weight(
    numbers, torch.tensor(arrays[f'{name}_scale_inv']), list(block), torch.float32
  )
  ours = dequantized(
    Tensors(arrays),
    {'quantization_config': FP8 | {'weight_block_size': block}},
    'float32',
    'config',
  )
  assert list(ours) == [name]
  np.testing.assert_array_equal(ours[name], theirs.numpy())


def _without(arrays, ending):
  del arrays[next(n for n in sorted(arrays) if n.endswith(ending))]


@pytest.mark.parametrize(
  ('quantization', 'change', 'message'),
  [
    (
      {'quant_method': 'hqq'},
      None,
      r"unknown quant_method 'hqq'\. .*Known: awq, .*Expected a known method, or the original",
    ),
    (FP8 | {'fmt': 'e5m2'}, None, "quantization_config: fmt is 'e5m2'. Expected 'e4m3'"),
    (
      FP8,
      lambda a: _without(a, '_scale_inv'),
      r'is float8 \[.*_scale_inv is missing. .*one per block of 16 x 24',
    ),
    (FP8 | {'weight_block_size': [8, 8]}, None, r'_scale_inv is \[.*one per block of 8 x 8'),
  ],
)
def test_unsupported_quantization_raises_an_error(
  deepseek, tmp_path, quantization, change, message
):
  scaled = lambda arrays: (_scaled(arrays, (16, 24)), change and change(arrays))
  with pytest.raises(errors.UserError, match=message):
    tfm.load(rewritten(deepseek, tmp_path / 'odd', quantization, scaled))


def test_mxfp4_experts_without_scales_raise_errors(packed, tmp_path):
  folder = rewritten(packed, tmp_path / 'odd', None, lambda arrays: _without(arrays, '_scales'))
  with pytest.raises(
    errors.UserError, match=r'_blocks is uint8 \[.*_scales is missing. Expected uint8 \[experts'
  ):
    tfm.load(folder)


def test_mxfp4_sizes_fit_gpt_oss():
  """A matrix of the smaller model has blocks [32, 5760, 90, 16] and scales [32, 5760, 90]."""
  moe = gpt_oss.MODELS['gpt-oss-20b'].spec.segments[0].pattern[0].ffn
  assert (moe.experts, 2 * moe.expert.d_ff, 2880 // 32) == (32, 5760, 90)
