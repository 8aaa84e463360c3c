"""Rotary config fields have the angles of transformers, or raise an error."""

import itertools
import warnings

import numpy as np
import pytest

from tfm.core import errors
from tfm.zoo import weights

_SIZES = {
  'hidden_size': 64, 'intermediate_size': 96, 'num_hidden_layers': 1, 'num_attention_heads': 4,
  'vocab_size': 128, 'max_position_embeddings': 256,
}  # fmt: skip
#: (model_type, class, further fields) of families with different rotary embeddings.
FAMILIES = {
  'llama': ('LlamaForCausalLM', {}),
  'phi': ('PhiForCausalLM', {}),
  'phi3': ('Phi3ForCausalLM', {'pad_token_id': 0, 'original_max_position_embeddings': 64}),
  'gpt_neox': ('GPTNeoXForCausalLM', {}),
  'glm4': ('Glm4ForCausalLM', {'head_dim': 16, 'num_key_value_heads': 2, 'pad_token_id': 0}),
}
_FACTORS = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5]
_FULL: dict[str, dict] = {
  'default': {},
  'linear': {'factor': 4.0},
  'dynamic': {'factor': 4.0},
  'llama3': {
    'factor': 8.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0,
    'original_max_position_embeddings': 64,
  },
  'yarn': {
    'factor': 4.0, 'original_max_position_embeddings': 64, 'beta_fast': 32, 'beta_slow': 1,
    'mscale': 1.0, 'mscale_all_dim': 0.7,
  },
  'longrope': {
    'short_factor': _FACTORS, 'long_factor': _FACTORS[::-1], 'original_max_position_embeddings': 64,
  },
}  # fmt: skip
#: Changes of one key: (key, values), with `...` for a removed key.
_CHANGES: dict[str, list] = {
  'factor': [..., None, 0.5, 1.0, 0, -2.0, '8', True],
  'original_max_position_embeddings': [..., None, 4, 16, 256, 512, 0],
  'attention_factor': [None, 0.9, 1.0],
  'beta_fast': [..., None, 0, 4, 0.5],
  'beta_slow': [..., None, 0, 2, 64],
  'mscale': [..., None, 0.0, 0.5],
  'mscale_all_dim': [..., None, 0.0],
  'truncate': [True, False, None],
  'low_freq_factor': [..., None, 4.0, 8.0],
  'high_freq_factor': [..., None, 1.0],
  'short_factor': [..., None, [1.0] * 7, [1.0] * 9, [1.0], []],
  'long_factor': [..., None, [2.0] * 9],
  'rope_theta': [5e5, None, 0],
  'partial_rotary_factor': [0.5, 1.0, None, 0],
  'type': ['yarn', 'linear', 'default', None],
  'rope_type': [None, 'spiral', 7],
  'facter': [2.0, None],
  'finetuned': [True],
}


def _config(family, rope, **top_level):
  architecture, fields = FAMILIES[family]
  return {
    'model_type': family,
    'architectures': [architecture],
    **_SIZES,
    **fields,
    **top_level,
    'rope_scaling': rope,
  }


def _ours(config):
  """Return frequencies and the factor of cos and sin in tfm, None if the config is invalid."""
  try:
    spec = weights.published(config).spec
  except errors.UserError:
    return None
  attention = spec.segments[0].pattern[0].mixer
  rope = attention.relative
  d = rope.rotated(attention.size(spec.d_model))
  return rope.scaling.scale(rope.base ** (-np.arange(0, d, 2, dtype=np.float64) / d), rope.base)


def _theirs(config, length):
  """Return the same for transformers at a sequence length, None if it raises an error."""
  import torch
  from transformers import AutoConfig
  from transformers.models.auto.modeling_auto import MODEL_MAPPING

  values = dict(config)
  try:
    config = AutoConfig.for_model(values.pop('model_type'), **values)
    module = __import__(MODEL_MAPPING[type(config)].__module__, fromlist=['x'])
    name = next(n for n in vars(module) if n.endswith('RotaryEmbedding'))
    rotary = getattr(module, name)(config)
    cos, sin = rotary(torch.zeros(1, length, 1), torch.arange(length)[None])
  except Exception:  # transformers raises many types for a broken config.
    return None
  return rotary.inv_freq.double().numpy(), float(
    np.hypot(cos.numpy()[0, 0, 0], sin.numpy()[0, 0, 0])
  )


def _changed(kind, key, value):
  rope = {'rope_type': kind, **_FULL[kind], key: value}
  return {k: v for k, v in rope.items() if v is not ...}


def _check(config):
  ours = _ours(config)
  if ours is None:
    return False
  length = config['max_position_embeddings']
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    theirs = _theirs(config, length)
  assert theirs is not None, 'tfm reads a config that transformers refuses'
  np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
  assert ours[1] == pytest.approx(theirs[1], rel=1e-5)
  return True


@pytest.mark.oracle
@pytest.mark.parametrize('kind', _FULL)
@pytest.mark.parametrize('family', FAMILIES)
def test_angles_match_transformers_or_raise(family, kind):
  if family == 'phi3' and kind not in ('default', 'longrope'):
    kind = 'longrope'
  read = [
    _check(_config(family, _changed(kind, key, value)))
    for key in _CHANGES
    for value in _CHANGES[key]
  ]
  assert any(read)
  assert not all(read)


@pytest.mark.oracle
@pytest.mark.parametrize('kind', ['default', 'linear', 'yarn', 'llama3'])
def test_top_level_rotary_fields_match_transformers(kind):
  base = {'rope_type': kind, **_FULL[kind]}
  places = [
    {},
    {'rope_theta': 5e5},
    {'original_max_position_embeddings': 32},
    {'partial_rotary_factor': 0.5},
  ]
  tables = [base, {**base, 'rope_theta': 5e5}, {**base, 'rope_theta': 1e6}]
  for top_level, table, name in itertools.product(
    places, tables, ['rope_scaling', 'rope_parameters']
  ):
    config = _config('llama', None, **top_level)
    _check({**config, name: table})


@pytest.mark.parametrize(
  ('rope', 'top_level', 'message'),
  [
    ({'type': 'linear'}, {}, r'rope_scaling: factor is missing'),
    ({'type': 'yarn', 'facter': 2.0}, {}, r"unknown key 'facter'\. Did you mean 'factor'"),
    ({'type': 'yarn', 'rope_type': 'linear', 'factor': 2.0}, {},
     r"rope_type is 'linear', and type is 'yarn'"),
    ({'type': 'linear', 'factor': None}, {}, r'factor is None\. Expected a number above 0'),
    ({'type': 'linear', 'factor': 2.0, 'beta_fast': 3}, {},
     r"beta_fast is 3, and rope_type 'linear' ignores it"),
    ({'type': 'dynamic', 'factor': 2.0, 'original_max_position_embeddings': 9}, {},
     r'Expected max_position_embedd'),
    ({'type': 'linear', 'factor': 2.0, 'rope_theta': 5.0}, {'rope_theta': 7.0},
     r'rope_theta=7\.0 outside the table'),
    ({'type': 'linear', 'factor': 2.0}, {'partial_rotary_factor': 0.5},
     r'this family rotates whole heads'),
    ({'type': 'linear', 'factor': 2.0}, {'rope_parameters': {'rope_theta': 5.0}},
     r'rope_scaling lacks it\. Exp'),
    ({'type': 'longrope', 'short_factor': 1, 'long_factor': [1]}, {},
     r'short_factor is 1\. Expected a list'),
    ('linear', {}, r"rope_scaling is 'linear'\. Expected a table of keys"),
    (
      {'type': 'longrope', 'short_factor': [1.0] * 3, 'long_factor': [1.0] * 3, 'factor': 4.0}, {},
      r'long has 3 factors\. Expected 8',
    ),
    (
      {'type': 'yarn', 'factor': 2.0, 'original_max_position_embeddings': 64},
      {'original_max_position_embeddings': 32}, r'is 64, and 32 outside the table',
    ),
  ],
)  # fmt: skip
def test_inconsistent_rotary_keys_raise_errors(rope, top_level, message):
  with pytest.raises(errors.UserError, match=message):
    weights.published(_config('llama', rope, **top_level))


_GEMMA = {
  'model_type': 'gemma3_text', 'architectures': ['Gemma3ForCausalLM'], **_SIZES, 'head_dim': 16,
  'num_key_value_heads': 2, 'num_hidden_layers': 6,
}  # fmt: skip


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'rope_parameters': {'rope_type': 'linear', 'factor': 8.0}},
      r'factor is outside the layer types',
    ),
    (
      {
        'rope_parameters': {'full_attention': {'rope_type': 'default'}},
        'rope_scaling': {'rope_type': 'default'},
      },
      'both rope_parameters and rope_scaling are set',
    ),
  ],
)
def test_rotary_tables_per_layer_type_are_never_merged(fields, message):
  with pytest.raises(errors.UserError, match=message):
    weights.published({**_GEMMA, **fields})


def test_scaling_of_gemma3_applies_to_global_layers():
  spec = weights.published({**_GEMMA, 'rope_scaling': {'rope_type': 'linear', 'factor': 8.0}}).spec
  ropes = {b.mixer.relative for s in spec.segments for b in s.pattern}
  assert sorted((r.base, getattr(r.scaling, 'factor', None)) for r in ropes) == [
    (1e4, None),
    (1e6, 8.0),
  ]
