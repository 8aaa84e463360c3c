"""Configs of popular repositories load with the published number of parameters.

`tests/hub/configs/*.jsonl` has one repository per line: its name, its number of parameters (null if
not published), and the fields of its `config.json`. The fields are written from published facts,
including unusual fields that programs add.
"""

import contextlib
import dataclasses
import json
import pathlib

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from tfm.core import errors
from tfm.hub.names import key
from tfm.hub.spec_equivalence import flattened, normalised
from tfm.model.count import count_params
from tfm.zoo import weights

_ROWS = [
  json.loads(line)
  for path in sorted((pathlib.Path(__file__).parent / 'configs').glob('*.jsonl'))
  for line in path.read_text('utf-8').splitlines()
]
CORPUS = {row['repository']: row for row in _ROWS}
#: Repositories with slow counts or tensor maps.
_BIG = {
  'deepseek-ai/DeepSeek-V3',
  'Qwen/Qwen3-30B-A3B',
  'deepseek-ai/DeepSeek-V2-Lite',
  'allenai/OLMoE-1B-7B-0924',
}
#: Families with a tied head that transformers unties if the file has one.
_TIED_AT_FIRST = ('t5', 'mt5', 'umt5', 'longt5', 'switch_transformers')
#: Fields that change shapes or outputs. Tests misspell one at a time.
_COMPUTED = (
  'hidden_size', 'n_embd', 'd_model', 'dim', 'num_hidden_layers', 'n_layer', 'n_layers',
  'num_layers', 'd_ff', 'intermediate_size', 'num_attention_heads', 'n_head', 'num_heads',
  'num_key_value_heads', 'head_dim', 'rms_norm_eps', 'layer_norm_eps', 'layer_norm_epsilon',
  'hidden_act', 'activation_function', 'rope_theta', 'rope_scaling', 'sliding_window',
  'tie_word_embeddings', 'attention_bias', 'partial_rotary_factor', 'rotary_pct', 'rotary_dim',
  'num_experts_per_tok', 'num_local_experts', 'num_experts', 'query_pre_attn_scalar',
  'attn_logit_softcapping', 'final_logit_softcapping', 'logit_scale', 'embedding_multiplier',
  'residual_multiplier', 'logits_scaling', 'routed_scaling_factor', 'feed_forward_proj',
  'scale_embedding', 'position_buckets', 'kv_lora_rank', 'norm_topk_prob', 'vocab_size',
)  # fmt: skip


def test_corpus_repositories_are_unique():
  assert len(CORPUS) == len(_ROWS) >= 60


@pytest.mark.parametrize('repository', CORPUS)
def test_parameter_count_matches_publication(repository):
  row = CORPUS[repository]
  found = weights.published(row['config'], repository)
  ours = count_params(found.spec)
  if row['parameters'] is not None:
    # For BART variants, tfm counts the bias of the logits, a buffer in transformers.
    assert ours - _logits_bias(found) == row['parameters']


def _logits_bias(found):
  buffer = [
    t
    for t in weights.tensor_map(found.family, found.spec, found.ending)
    if t.name == 'final_logits_bias'
  ]
  return sum(t.shape[-1] for t in buffer)


@pytest.mark.large(when=lambda repository: repository in _BIG)
@pytest.mark.parametrize('repository', CORPUS)
def test_tensor_names_have_distinct_keys(repository):
  found = weights.published(CORPUS[repository]['config'], repository)
  planned = [t.name for t in weights.tensor_map(found.family, found.spec, found.ending)]
  assert len({key(found.family, name) for name in planned}) == len(planned)


def _made(config):
  """Return the config of transformers, None if it rejects the fields."""
  import transformers

  values = {name: value for name, value in config.items() if name != 'quantization_config'}
  try:
    return transformers.AutoConfig.for_model(values.pop('model_type'), **values)
  except Exception:  # transformers raises many types for a broken config.
    return None


def _their_count(config):
  """Return the number of parameters in transformers, with the buffers that are tfm's parameters."""
  import torch
  import transformers

  name = config['architectures'][0].replace('MPTFor', 'MptFor')
  with torch.device('meta'):
    model = getattr(transformers, name)(_made(config))
  model.tie_weights()
  counted = ('final_logits_bias', 'e_score_correction_bias')
  buffers = [b for n, b in model.named_buffers() if n.endswith(counted)]
  return sum(x.numel() for x in [*model.parameters(), *buffers])


def _our_count(config):
  """Return the number of parameters in tfm as transformers counts them.

  Multi-token prediction layers are left out, fixed tables are included, and T5 variants have their
  initial head.
  """
  found = weights.published(config)
  spec = dataclasses.replace(found.spec, mtp=None)
  if config['model_type'] in _TIED_AT_FIRST:
    spec = spec.with_heads(lm=dataclasses.replace(spec.lm, tied=True))
  return count_params(spec) + sum(
    table.size for table in found.family.fixed_of(spec, found.ending).values()
  )


@pytest.mark.oracle
@pytest.mark.large(when=lambda repository: repository in _BIG)
@pytest.mark.parametrize('repository', CORPUS)
def test_parameter_count_matches_transformers(repository):
  config = CORPUS[repository]['config']
  assert _our_count(config) == _their_count(config)


def _same_as_transformers(config):
  """Return whether tfm reads a config, after comparing it with the config of transformers."""
  try:
    ours = weights.published(config).spec
  except errors.UserError:
    return False
  reference = _made(config)
  assert reference is not None, 'tfm reads a config that transformers refuses'
  values = json.loads(reference.to_json_string(use_diff=False))
  required = {'architectures': config['architectures'], 'model_type': config['model_type']}
  if config['model_type'] in _TIED_AT_FIRST:
    required['tie_word_embeddings'] = config.get('tie_word_embeddings', True)
  theirs = weights.published(values | required).spec
  assert flattened(normalised(ours)) == flattened(normalised(theirs))
  return True


@pytest.mark.oracle
@pytest.mark.parametrize('repository', CORPUS)
def test_config_defaults_match_transformers(repository):
  assert _same_as_transformers(CORPUS[repository]['config'])


#: (repository, config field that changes shapes or outputs).
PAIRS = [
  (name, field) for name, row in CORPUS.items() for field in _COMPUTED if field in row['config']
]


@pytest.mark.oracle
@pytest.mark.parametrize('repository', CORPUS)
def test_missing_field_raises_or_has_its_default(repository):
  for _, field in (pair for pair in PAIRS if pair[0] == repository):
    config = dict(CORPUS[repository]['config'])
    del config[field]
    _same_as_transformers(config)


def _misspelt(field, at):
  at %= len(field) - 1
  swapped = field[:at] + field[at + 1] + field[at] + field[at + 2 :]
  return swapped if swapped != field else f'{field}s'


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(PAIRS), st.integers(0, 30))
def test_misspelt_field_raises_unless_neutral(pair, at):
  name, field = pair
  config = dict(CORPUS[name]['config'])
  value, wrong = config.pop(field), _misspelt(field, at)
  misspelt = {**config, wrong: value}
  if value in (None, False):
    with contextlib.suppress(errors.UserError):  # For a required field.
      assert weights.published(misspelt).spec == weights.published(config).spec
    return
  with pytest.raises(errors.UserError) as error:
    weights.published(misspelt)
  assert wrong in str(error.value) or field in str(error.value)
