"""Published models with ternary weights give the results of transformers."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from tests.hub.published import SIZES, D, F, K, V
from tests.hub.test_quantized import rewritten
from tests.oracles import copying
import tfm
from tfm import hub
from tfm.core import errors
from tfm.model.spec import blocks
from tfm.parts.embed.tokens import Tokens
from tfm.parts.rounding import Ternary
from tfm.zoo import bitnet, weights

FIELDS = {**SIZES, 'num_key_value_heads': K, 'pad_token_id': 0}
#: Kind of linear layer -> its options in transformers.
KINDS = {
  'online': {'linear_class': 'autobitlinear', 'quantization_mode': 'online'},
  'offline': {'linear_class': 'autobitlinear', 'quantization_mode': 'offline'},
  'packed': {'linear_class': 'bitlinear'},
}


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
  """Import functions of transformers without `torch.compile`."""
  torch = pytest.importorskip('torch')
  monkeypatch.setattr(torch, 'compile', lambda function: function)
  import transformers.integrations.bitnet  # noqa: F401


def ids():
  return copying.tokens(2, 10, vocab=V).astype(np.int32)


def made(kind: str, stem: str, folder: Path):
  """Return a model of transformers with linear layers of a kind, and write its folder."""
  import torch
  import transformers
  from transformers.integrations.bitnet import pack_weights, replace_with_bitnet_linear

  torch.manual_seed(0)
  theirs = getattr(transformers, f'{stem}ForCausalLM')(
    getattr(transformers, f'{stem}Config')(**FIELDS)
  )
  copying.randomized(theirs, 0.1)
  quantization = transformers.BitNetQuantConfig(**KINDS[kind])
  weights = {n: p.detach().clone() for n, p in theirs.state_dict().items()}
  replace_with_bitnet_linear(theirs, ['lm_head'], quantization)
  theirs.to_empty(device='cpu')
  for name in [n for n in theirs.state_dict() if n.endswith('weight_scale')]:
    weight, scale = weights[name.removesuffix('_scale')], torch.rand(1) * 0.5 + 0.5
    ternary = torch.sign(weight) * (weight.abs() > 0.05)
    weights[name.removesuffix('_scale')] = pack_weights(ternary) if kind == 'packed' else ternary
    weights[name] = scale
  theirs.load_state_dict(weights)
  for module in theirs.modules():  # rotary frequencies are not stored, and to_empty drops them
    if hasattr(module, 'original_inv_freq'):
      module.inv_freq = module.compute_default_rope_parameters(theirs.config)[0]
  theirs.config.quantization_config = quantization
  folder.mkdir()
  arrays = {n: t.contiguous().numpy() for n, t in weights.items()}
  safetensors.numpy.save_file(arrays, folder / 'model.safetensors', metadata={'format': 'pt'})
  theirs.config.architectures = [f'{stem}ForCausalLM']
  values = theirs.config.to_dict() | {
    'quantization_config': quantization.to_dict(),
    'dtype': 'float32',
  }
  (folder / 'config.json').write_text(json.dumps(values, default=str))
  return theirs


@pytest.mark.oracle
@pytest.mark.parametrize('stem', ['BitNet', 'Llama'])
@pytest.mark.parametrize('kind', KINDS)
def test_rounded_logits_equal_transformers(kind, stem, tmp_path):
  import torch

  theirs = made(kind, stem, tmp_path / 'theirs')
  m = tfm.load(tmp_path / 'theirs')
  assert {b.rounding for b in blocks(m.spec)} == {Ternary(weights=kind == 'online')}
  with torch.no_grad():
    expected = theirs(torch.tensor(ids(), dtype=torch.long)).logits.numpy()
  np.testing.assert_allclose(
    m.apply(input_ids=ids())['logits'], expected, atol=2e-5 * max(1, np.abs(expected).max())
  )


@pytest.mark.oracle
def test_gradients_equal_straight_through_of_transformers(tmp_path):
  import torch

  theirs = made('online', 'BitNet', tmp_path / 'theirs')
  m = tfm.load(tmp_path / 'theirs')
  weight = np.random.default_rng(0).standard_normal((2, 10, V)).astype(np.float32)
  (theirs(torch.tensor(ids(), dtype=torch.long)).logits * torch.tensor(weight)).sum().backward()
  total = lambda params: jnp.sum(tfm.apply(m.spec, params, input_ids=ids())['logits'] * weight)
  gradients = jax.grad(total)(jax.tree.map(jnp.asarray, m.params))
  grads = {n: p.grad.numpy() for n, p in theirs.named_parameters()}
  folder = tmp_path / 'gradients'
  hub.export_hf(m.spec, gradients, folder)
  ours = safetensors.numpy.load_file(folder / 'model.safetensors')
  assert sorted(ours) == sorted(grads)
  for name, expected in grads.items():
    np.testing.assert_allclose(
      ours[name], expected, atol=1e-4 * np.abs(expected).max(), err_msg=name
    )


@pytest.mark.oracle
@pytest.mark.parametrize('kind', KINDS)
def test_exported_rounding_loads_in_transformers(kind, tmp_path):
  import torch
  import transformers

  theirs = made(kind, 'BitNet', tmp_path / 'theirs')
  m = tfm.load(tmp_path / 'theirs')
  assert m.export_hf(tmp_path / 'back') == 'BitNetForCausalLM'
  again, info = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / 'back', output_loading_info=True, dtype=torch.float32
  )
  assert not any(info[k] for k in ('missing_keys', 'unexpected_keys', 'mismatched_keys')), info
  with torch.no_grad():
    first, second = (
      each(torch.tensor(ids(), dtype=torch.long)).logits.numpy() for each in (theirs, again)
    )
  np.testing.assert_allclose(second, first, atol=2e-5 * max(1, np.abs(first).max()))
  reloaded = tfm.load(tmp_path / 'back')
  assert reloaded.spec == m.spec
  jax.tree.map(np.testing.assert_array_equal, reloaded.params, m.params)


def folder_of(spec, path):
  params = tfm.init(spec, jax.random.key(0))
  hub.export_hf(spec, params, path)
  return path


SMALL = dataclasses.replace(bitnet.bitnet(2, D, 4, K, F), embed=Tokens(V))


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'use_rms_norm': True}, r'use_rms_norm is True\. Expected any of False'),
    (
      {'linear_class': 'linear'},
      r"linear_class is 'linear'\. Expected any of 'bitlinear', 'autobitlinear'",
    ),
    (
      {'quantization_mode': 'both'},
      r"quantization_mode is 'both'\. Expected any of 'offline', 'online'",
    ),
    (
      {'modules_to_not_convert': []},
      r"modules_to_not_convert is \[\]\. Expected any of None, \['lm_head'\]",
    ),
  ],
)
def test_unsupported_options_raise(options, message, tmp_path):
  folder = rewritten(
    folder_of(SMALL, tmp_path / 'own'),
    tmp_path / 'odd',
    {'quant_method': 'bitnet', **options},
    lambda arrays: None,
  )
  with pytest.raises(errors.UserError, match=f'quantization_config: {message}'):
    tfm.load(folder)


def test_rounding_of_other_families_raises():
  plain = {'model_type': 'qwen2', **FIELDS, 'quantization_config': {'quant_method': 'bitnet'}}
  with pytest.raises(
    errors.UserError, match=r'is not supported for Qwen2ForCausalLM\. Expected model_type bitnet or'
  ):
    weights.published(plain)


def test_scale_of_another_shape_raises(tmp_path):
  def widen(arrays):
    arrays['model.layers.0.mlp.down_proj.weight_scale'] = np.ones(2, np.float32)

  folder = rewritten(
    folder_of(SMALL, tmp_path / 'own'), tmp_path / 'odd', {'quant_method': 'bitnet'}, widen
  )
  with pytest.raises(
    errors.UserError, match=r'weight_scale has shape \[2\]\. Expected \[1\], one scale'
  ):
    tfm.load(folder)


def test_scale_without_a_weight_raises(tmp_path):
  def lost(arrays):
    arrays['model.layers.0.mlp.down_proj.weight_scale'] = np.ones(1, np.float32)
    del arrays['model.layers.0.mlp.down_proj.weight']

  folder = rewritten(
    folder_of(SMALL, tmp_path / 'own'), tmp_path / 'odd', {'quant_method': 'bitnet'}, lost
  )
  with pytest.raises(
    errors.UserError,
    match=r'weight_scale has no .*down_proj\.weight\. Expected a weight for each scale',
  ):
    tfm.load(folder)
