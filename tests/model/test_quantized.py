"""Models with stored quantized weights compute and generate with their dequantized values."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.generate.models import MODELS, weights
import tfm
from tfm.core.errors import UserError
from tfm.generate import generate, prepare
from tfm.hub.loaded import Loaded
from tfm.hub.save import save
from tfm.model import transformer
from tfm.model.spec import Block, Segment
from tfm.parts.adapter.lora import LoRA
from tfm.parts.ffn import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.mixer.attention import Attention
from tfm.parts.quantize import TABLE
from tfm.parts.quantize.stored import Quantized, QuantizedExperts
from tfm.parts.rounding.ternary import Ternary
from tfm.train import shard
from tfm.train.mesh import Mesh

qwix = pytest.importorskip('qwix')
IDS = jnp.asarray([[5, 9, 2, 60, 1, 1, 7]], jnp.int32)
INT4 = TABLE['int4'](tile=8, skip=())
PLAIN = MODELS['rope_gqa']


def with_blocks(*pattern, **fields):
  return dataclasses.replace(PLAIN, segments=(Segment(pattern, 2),), **fields)


SPECS = {
  'rope_gqa': PLAIN,
  'mla': MODELS['mla'],
  'encdec': MODELS['encdec'],
  'moe': with_blocks(Block(Attention(4), Moe(expert=Glu(48), experts=4))),
}


def dequantized(params, small):
  """Return `params` with the values of the stored weights of `small`."""
  values = lambda q: qwix.dequantize(q.astype(jnp.float32))
  is_stored = lambda w: isinstance(w, Quantized | QuantizedExperts)

  def value(stored, w):
    if isinstance(stored, QuantizedExperts):
      return values(stored.w_Eio)
    if isinstance(stored, Quantized):
      return jnp.swapaxes(values(stored.w_oi), -1, -2).reshape(w.shape)
    return stored

  wide = jax.tree.map(value, small, params, is_leaf=is_stored)
  wide['embed']['table'] = values(small['embed']['table'].w_oi)
  return wide


@functools.partial(jax.jit, static_argnums=0)
def logits(spec, params):
  inputs = {} if spec.encoder is None else {'decoder_input_ids': IDS}
  return transformer.apply(spec, params, input_ids=IDS, **inputs)['logits']


@pytest.mark.parametrize('name', SPECS)
@pytest.mark.large(when=lambda name: name in ('rope_gqa', 'encdec'))
def test_stored_weights_compute_with_their_values(name):
  spec = SPECS[name]
  small = tfm.quantize(spec, weights(spec), INT4)
  expected = logits(spec, dequantized(weights(spec), small))
  np.testing.assert_allclose(logits(spec, small), expected, rtol=1e-3, atol=1e-3)
  assert np.abs(expected - logits(spec, weights(spec))).max() > 1e-2


@pytest.mark.parametrize('name', ['rope_gqa', 'mla'])
@pytest.mark.large(when=lambda name: name == 'mla')
def test_quantized_models_generate_prepared_or_not(name):
  spec = SPECS[name]
  small = tfm.quantize(spec, weights(spec), INT4)
  ready = prepare(spec, small)
  np.testing.assert_allclose(logits(spec, ready), logits(spec, small), rtol=1e-3, atol=1e-3)
  prompts, options = [[5, 9, 2]], {'max_new_tokens': 5, 'temperature': 0}
  assert generate(spec, ready, prompts, **options) == generate(spec, small, prompts, **options)


def test_stored_experts_are_split_over_a_mesh():
  spec, axes = SPECS['moe'], Mesh(expert=4)
  small = tfm.quantize(spec, weights(spec), INT4)
  forward = lambda p: transformer.apply(spec, p, input_ids=IDS)['logits']
  mesh = shard.make_mesh(axes, jax.devices()[:4])
  small = jax.device_put(small, shard.replicated(mesh))
  sharded = jax.jit(shard.with_rules(mesh, axes.table(), forward))
  assert 'all_reduce' in sharded.lower(small).as_text()
  expected = logits(spec, tfm.quantize(spec, weights(spec), INT4))
  np.testing.assert_allclose(sharded(small), expected, rtol=1e-3, atol=1e-3)


def test_projections_of_different_formats_are_not_fused():
  small = tfm.quantize(PLAIN, weights(PLAIN), TABLE['int8'](targets=('k',)))
  np.testing.assert_allclose(
    logits(PLAIN, prepare(PLAIN, small)), logits(PLAIN, small), rtol=1e-3, atol=1e-3
  )


def test_weights_take_a_quarter_or_less_of_the_memory():
  kernel = weights(PLAIN)['segment_0']['block_0']['ffn']['up']['kernel']
  stored = tfm.quantize(PLAIN, weights(PLAIN), 'int8')['segment_0']['block_0']['ffn']['up'][
    'kernel'
  ]
  assert stored.w_oi.qvalue.dtype == jnp.int8
  assert stored.w_oi.scale.size == kernel.size // 32  # one per output
  four = tfm.quantize(PLAIN, weights(PLAIN), INT4)['segment_0']['block_0']['ffn']['up']['kernel']
  assert four.w_oi.qvalue.dtype == jnp.int4
  assert four.w_oi.qvalue.size == kernel.size


def test_adapters_train_on_quantized_weights():
  spec = dataclasses.replace(PLAIN, adapter=LoRA(rank=2, targets=('q', 'up')))
  small = tfm.quantize(spec, weights(spec), INT4)
  wide = dequantized(weights(spec), small)

  def gradient(params):
    block = params['segment_0']['block_0']

    def loss(lora):
      q = block['mixer']['q'] | {'lora': lora}
      changed = block | {'mixer': block['mixer'] | {'q': q}}
      new = params | {'segment_0': params['segment_0'] | {'block_0': changed}}
      return jnp.mean(transformer.apply(spec, new, input_ids=IDS)['logits'] ** 2)

    return jax.jit(jax.grad(loss))(block['mixer']['q']['lora'])

  found, expected = gradient(small), gradient(wide)
  assert np.abs(expected['a']).max() > 0
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3 * np.abs(b).max()),
    found,
    expected,
  )


@pytest.mark.parametrize(
  ('spec', 'to', 'message'),
  [
    (PLAIN, 'none', 'quantizes no weights. Expected one of int8, fp8, int4'),
    (PLAIN, TABLE['int4'](tile=5), 'segment_0/.*/kernel: quantize: tile=5 does not divide'),
    (PLAIN, TABLE['int4'](tile=0), 'tile=0 is not a size'),
    (with_blocks(Block(Attention(4), Glu(48), rounding=Ternary())), 'int4', 'rounds its project'),
  ],
  ids=['none', 'tile', 'field', 'rounding'],
)
def test_what_cannot_be_quantized_is_refused(spec, to, message):
  with pytest.raises(UserError, match=message):
    tfm.quantize(spec, weights(spec), to)


def test_quantized_parameters_are_not_quantized_again(tmp_path):
  m = Loaded(PLAIN, weights(PLAIN)).quantized('int8')
  with pytest.raises(UserError, match='not quantized or prepared before'):
    m.quantized()
  with pytest.raises(UserError, match=r'quantized already\. Expected int8=False'):
    prepare(PLAIN, m.params, int8=True)
  with pytest.raises(UserError, match='Expected the parameters that they were made from'):
    save(PLAIN, m.params, tmp_path / 'new')
