"""Numbers and errors of GPTQ, AWQ, bitsandbytes, compressed-tensors, FBGEMM and MLX."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from tests.hub import quantizing as make
import tfm
from tfm import hub, zoo
from tfm.core import errors
from tfm.hub.quantized import dequantized
from tfm.hub.tensors import SAFE, Tensors
from tfm.model.transformer import param_shapes

FP8 = ml_dtypes.float8_e4m3fn
GPTQ = {'quant_method': 'gptq', 'bits': 4, 'group_size': 16}
AWQ = {'quant_method': 'awq', 'bits': 4, 'group_size': 16, 'version': 'gemm', 'zero_point': True}
BNB = {'quant_method': 'bitsandbytes', 'load_in_8bit': True}


def _compressed(form, **weights):
  scheme = {'num_bits': 8, 'type': 'int', 'symmetric': True, **weights}
  return {
    'quant_method': 'compressed-tensors', 'format': form, 'quantization_status': 'compressed',
    'ignore': ['lm_head'],
    'config_groups': {'group_0': {
      'targets': ['Linear'], 'weights': scheme, 'input_activations': None,
    }},
  }  # fmt: skip


GROUPS, BLOCKS = (
  {'strategy': 'group', 'group_size': 16},
  {'strategy': 'block', 'block_structure': [20, 40]},
)

#: Format -> (quantization_config, writer of a weight of a given shape).
FORMATS = {
  'gptq': (GPTQ, make.gptq),
  'gptq_8_bits': (GPTQ | {'bits': 8}, lambda s: make.gptq(s, bits=8)),
  'gptq_2_bits': (GPTQ | {'bits': 2}, lambda s: make.gptq(s, bits=2)),
  'gptq_ordered': (GPTQ | {'desc_act': True}, lambda s: make.gptq(s, ordered=True)),
  'gptq_one_group': (GPTQ | {'group_size': -1}, lambda s: make.gptq(s, size=s[1])),
  'gptq_v2': (GPTQ | {'checkpoint_format': 'gptq_v2'}, lambda s: make.gptq(s, second=True)),
  'awq': (AWQ, make.awq),
  'awq_old_names': ({
    'quant_method': 'awq', 'w_bit': 4, 'q_group_size': 16, 'version': 'GEMM',
  }, make.awq),
  'int8_rows': (BNB, make.int8_rows),
  'nf4': (BNB, make.four_bits),
  'nf4_nested': (BNB, lambda s: make.four_bits(s, nested=True)),
  'fp4': (BNB, lambda s: make.four_bits(s, 'fp4')),
  'w8a8': (_compressed('int-quantized', strategy='channel'), make.compressed),
  'w8_tensor': (
    _compressed('naive-quantized', strategy='tensor'), lambda s: make.compressed(s, 'tensor'),
  ),
  'w8_group': (_compressed('int-quantized', **GROUPS), lambda s: make.compressed(s, 'group')),
  'w8_zeros': (
    _compressed('int-quantized', symmetric=False), lambda s: make.compressed(s, zeros=True),
  ),
  'fp8_channel': (
    _compressed('float-quantized', type='float'), lambda s: make.compressed(s, dtype=FP8),
  ),
  'fp8_tensor': (
    _compressed('float-quantized', type='float'), lambda s: make.compressed(s, 'tensor', dtype=FP8),
  ),
  'fp8_block': (
    _compressed('float-quantized', **BLOCKS), lambda s: make.compressed(s, 'block', dtype=FP8),
  ),
  'w4a16': (_compressed('pack-quantized', num_bits=4, **GROUPS), make.pack_quantized),
  'w4a16_zeros': (
    _compressed('pack-quantized', num_bits=4, **GROUPS),
    lambda s: make.pack_quantized(s, zeros=True),
  ),
  'w4a16_ordered': (
    _compressed('pack-quantized', num_bits=4, **GROUPS),
    lambda s: make.pack_quantized(s, ordered=True)
  ),
  'w8a16': (
    _compressed('pack-quantized', num_bits=8, **GROUPS), lambda s: make.pack_quantized(s, 8),
  ),
  'w4a16_channel': (
    _compressed('pack-quantized', num_bits=4, strategy='channel'),
    lambda s: make.pack_quantized(s, size=s[1])
  ),
  'fbgemm_fp8': ({'quant_method': 'fbgemm_fp8', 'activation_scale_ub': 1200.0}, make.fbgemm),
  'mlx': ({'group_size': 16, 'bits': 4}, make.mlx),
  'mlx_8_bits': ({'group_size': 16, 'bits': 8, 'mode': 'affine'}, lambda s: make.mlx(s, 8)),
}  # fmt: skip


def _read(options, arrays, dtype='float32', **config):
  named = {f'm.{n}': a for n, a in arrays.items()}
  return dequantized(
    Tensors(named), {'quantization_config': options, **config}, dtype, 'config.json'
  )


@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize('chunk', [1 << 20, 1 << 9])
def test_weights_match_the_format(form, chunk, monkeypatch):
  monkeypatch.setattr('tfm.hub.quantized.lazy_weights._CHUNK', chunk)
  options, written = FORMATS[form]
  arrays, expected = written((48, 96))
  found = _read(options, arrays | {'bias': np.ones(48, np.float16)})
  assert sorted(found) == ['m.bias', 'm.weight']
  assert found.shape('m.weight') == (48, 96)
  np.testing.assert_array_equal(found['m.weight'], expected)
  for dtype in ('float16', 'bfloat16'):
    np.testing.assert_array_equal(
      _read(options, arrays, dtype)['m.weight'], expected.astype(np.dtype(dtype))
    )


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
  path = tmp_path_factory.mktemp('plain') / 'llama'
  spec = zoo.tiny(zoo.get('llama3-8b'))
  params = jax.tree.map(lambda x: make.RNG.standard_normal(x.shape, np.float32), param_shapes(spec))
  hub.export_hf(spec, params, path)
  return path


@pytest.mark.parametrize(
  'form', ['gptq_ordered', 'awq', 'int8_rows', 'nf4_nested', 'w8a8', 'w4a16_zeros', 'mlx']
)
def test_quantized_folders_load_as_their_weights(plain, tmp_path, form):
  options, written = FORMATS[form]
  arrays = safetensors.numpy.load_file(plain / SAFE)
  numbers = dict(arrays)
  for name in [n for n in arrays if n.endswith('proj.weight')]:
    parts, numbers[name] = written(arrays.pop(name).shape)
    arrays |= {
      f'{name.removesuffix("weight")}{n}': np.ascontiguousarray(a) for n, a in parts.items()
    }
  config = json.loads((plain / 'config.json').read_text())
  name = 'quantization' if form == 'mlx' else 'quantization_config'
  for folder, tensors, extra in (('quantized', arrays, {name: options}), ('numbers', numbers, {})):
    (tmp_path / folder).mkdir()
    stored = {n: np.ascontiguousarray(a) for n, a in tensors.items()}
    safetensors.numpy.save_file(stored, tmp_path / folder / SAFE, metadata={'format': 'pt'})
    (tmp_path / folder / 'config.json').write_text(json.dumps(config | extra))
  found, expected = (
    tfm.load(tmp_path / folder, dtype='float32').params for folder in ('quantized', 'numbers')
  )
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def _without(written, name):
  arrays, _ = written((48, 96))
  return {n: a for n, a in arrays.items() if n != name}


@pytest.mark.parametrize(
  ('options', 'arrays', 'message'),
  [
    (GPTQ | {'bits': 3}, {}, 'quantization_config: bits is 3. Expected 4, 8, 2'),
    ({'quant_method': 'gptq'}, {}, 'quantization_config: bits is None'),
    (
      GPTQ | {'checkpoint_format': 'marlin'},
      {},
      "checkpoint_format is 'marlin'. Expected 'gptq', 'gptq_v2'",
    ),
    (
      GPTQ,
      _without(make.gptq, 'scales'),
      'm.scales is missing. Expected it with m.qweight',
    ),
    (
      GPTQ | {'group_size': 32},
      _without(make.gptq, 'g_idx'),
      r'm.qzeros is int32 \[6, 6\]. Expected \[3, 6\]',
    ),
    (AWQ | {'version': 'gemv'}, {}, "version is 'gemv'. Expected 'gemm'"),
    (AWQ | {'bits': 3}, {}, 'bits is 3. Expected 4'),
    (AWQ, _without(make.awq, 'qzeros'), 'm.qzeros is missing'),
    (
      AWQ | {'group_size': 32},
      _without(make.awq, ''),
      r'm.qzeros is int32 \[6, 6\]. Expected \[3, 6\]',
    ),
    (
      BNB,
      _without(make.int8_rows, '') | {'weight_format': np.array(2, np.uint8)},
      r'weight_format is 2. Expected 0',
    ),
    (BNB, _without(make.int8_rows, 'weight'), 'm.weight is missing'),
    (
      BNB,
      _without(make.int8_rows, 'SCB'),
      'm.weight is int8 and has no scales. Expected all tensors',
    ),
    (
      _compressed('int-quantized'),
      _without(make.compressed, 'weight_scale'),
      'm.weight is int8 and has no scales',
    ),
    (
      _compressed('float-quantized'),
      {'weight': make.compressed((48, 96), dtype=FP8)[0]['weight']},
      'm.weight is float8_e4m3fn and has no scales',
    ),
    (BNB, _without(make.four_bits, 'weight.absmax'), 'm.weight.absmax is missing'),
    (
      BNB,
      _without(make.four_bits, '') | {'weight': np.zeros((7, 1), np.uint8)},
      'm.weight is 7 bytes with 72 block scales',
    ),
    (
      BNB,
      {'weight.quant_state.bitsandbytes__nf4': np.zeros(3, np.uint8)},
      'is not a quantization state',
    ),
    (_compressed('marlin-24'), {}, "unknown format 'marlin-24'"),
    (
      _compressed('dense') | {'transform_config': {'config_groups': {'u': 1}}},
      {},
      'transform_config=.* is not supported',
    ),
    (
      _compressed('dense') | {'sparsity_config': {'format': 'sparse-24-bitmask'}},
      {},
      'sparsity_config=.* is not supported',
    ),
    (
      _compressed('int-quantized', strategy='group', group_size=32),
      make.compressed((48, 96), 'group')[0],
      r'm.weight_scale is \[48, 6\] for 48 x 96 numbers. Expected scales of a scheme in',
    ),
    (
      _compressed('pack-quantized', num_bits=8, **GROUPS),
      make.pack_quantized((48, 96))[0],
      r'm.weight_packed is \[48, 12\] for 48 x 96 numbers of \[8\] bits',
    ),
    ({'group_size': 16, 'mode': 'mxfp4'}, {}, "mode is 'mxfp4'. Expected 'affine'"),
    (
      {'group_size': 32},
      make.mlx((48, 96))[0],
      r'm.weight is uint32 \[48, 12\]. Expected uint32 words for 48 x 192',
    ),
    (
      {'quant_method': 'fbgemm_fp8'},
      _without(make.fbgemm, 'weight_scale'),
      r'm.weight_scale is missing. .*\[48, 1\]',
    ),
  ],
)
def test_inconsistent_tensors_raise_errors(options, arrays, message):
  with pytest.raises(errors.UserError, match=message):
    _read(options, arrays)


def test_quantized_gpt2_raises_an_error():
  with pytest.raises(errors.UserError, match='quantized weights of gpt2 are not supported'):
    _read(GPTQ, make.gptq((48, 96))[0], model_type='gpt2')
