"""Specs stored by earlier versions are converted.

The golden file holds what `config.to_json` wrote before models had towers and heads by name.
"""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from tfm import tasks, zoo
from tfm.core import config, errors
from tfm.generate import prompt_file
from tfm.model import transformer
from tfm.model.spec import Model
from tfm.parts.act.tanh import Tanh
from tfm.parts.context import Run
from tfm.parts.embed.tokens import Tokens
from tfm.parts.head.classify import Classify
from tfm.tasks.base import Task

STORED = json.loads(
  (pathlib.Path(__file__).parents[1] / 'golden' / 'specs_before_towers.json').read_text()
)


def _tiny(name):
  return zoo.tiny(zoo.get(name))


def _with_source_vocab(spec):
  embed = dataclasses.replace(spec.encoder.embed, vocab=48)
  return spec.with_towers(encoder=dataclasses.replace(spec.encoder, embed=embed))


EXPECTED = {
  'gpt2': _tiny('gpt2'),
  't5': _tiny('t5-small'),
  'bart': _tiny('bart-base'),
  'bart-source-vocab': _with_source_vocab(_tiny('bart-base')),
  'bert-classifier': _tiny('bert-base').with_heads(
    lm=None, classify=Classify(3, hidden=Tanh(), dropout=0.1)
  ),
  'albert': _tiny('albert-base'),
  't5gemma-9b-2b': _tiny('t5gemma-9b-2b'),
  'deepseek-v3': _tiny('deepseek-v3'),
}


@pytest.mark.parametrize('name', STORED)
def test_stored_spec_is_read(name):
  found = config.validate(config.from_json(Model, STORED[name]))
  assert config.diff(found, EXPECTED[name]) == []
  assert found == EXPECTED[name]


@pytest.mark.parametrize('name', STORED)
def test_upgraded_spec_is_stored_in_new_fields(name):
  stored = config.to_json(config.from_json(Model, STORED[name]))
  assert {'heads', 'towers'} <= set(stored)
  assert 'encoder' not in stored
  assert config.from_json(Model, stored) == EXPECTED[name]


def test_unknown_field_of_an_old_spec_is_an_error():
  with pytest.raises(errors.ConfigError, match="unknown stored field of Model 'surprise'"):
    config.from_json(Model, {**STORED['gpt2'], 'surprise': 1})


def test_embedding_without_a_kind_is_tokens():
  stored = {**STORED['gpt2'], 'embed': {'scale': 2.0}}
  assert config.from_json(Model, stored).embed == Tokens(64, scale=2.0)


def _with_spec(path, spec):
  """Replace the spec of a prompt file."""
  with safetensors.safe_open(path, 'numpy') as file:
    metadata = file.metadata()
  safetensors.numpy.save_file(
    safetensors.numpy.load_file(path), path, {**metadata, 'spec': json.dumps(spec)}
  )


def test_prompt_file_of_an_earlier_version_is_read(tmp_path):
  spec, path, run = _tiny('gpt2'), tmp_path / 'prompt', Run()
  params = transformer.init(spec, jax.random.key(0))
  tokens, arrays = np.arange(3, dtype=np.int32), {'k': np.ones((2, 3), np.float32)}
  prompt_file.save(path, spec, params, run, tokens, arrays)
  _with_spec(path, STORED['gpt2'])
  found, kept = prompt_file.load(path, spec, params, run)
  np.testing.assert_array_equal(found, tokens)
  np.testing.assert_array_equal(kept['k'], arrays['k'])
  _with_spec(path, {**STORED['gpt2'], 'd_model': 16})
  with pytest.raises(errors.UserError, match=r'spec differs \(d_model'):
    prompt_file.load(path, spec, params, run)


def test_stored_task_drops_fields_without_effect():
  stored = {
    'part': 'classify',
    'label_smoothing': 0.1,
    'smooth_gold': True,
    'z_loss': 0.0,
    'mtp': 0.3,
    'framed': True,
  }
  assert config.from_json(Task, stored) == tasks.Classify(label_smoothing=0.1)
  with pytest.raises(errors.ConfigError, match='z_loss'):
    config.from_json(Task, {**stored, 'z_loss': 1e-4})


@pytest.mark.parametrize(
  ('name', 'last', 'total', 'encoder'),
  [
    ('t5-small', (-0.0631913, -1.509864, 0.3914546, 0.4777344), 526.8648, 304.1082),
    ('bart-base', (-0.1862333, -0.05219012, -0.04163222, -0.09372341), 59.01028, 307.5224),
  ],
  ids=['name=t5-small', 'name=bart-base'],
)
def test_encoder_decoder_outputs_are_unchanged(name, last, total, encoder):
  """The reference values are from the version before towers (60b492f), with the same inputs."""
  spec = zoo.tiny(zoo.get(name))
  ids = jnp.arange(12, dtype=jnp.int32).reshape(2, 6) + 3
  mask = jnp.array([[1] * 6, [1] * 4 + [0] * 2], jnp.int32)
  given = {'input_ids': ids, 'attention_mask': mask, 'decoder_input_ids': ids[:, :5] + 20}
  out = jax.jit(lambda p: transformer.apply(spec, p, **given))(
    transformer.init(spec, jax.random.key(0))
  )
  np.testing.assert_allclose(out['logits'][1, -1, :4], last, rtol=1e-4)
  np.testing.assert_allclose(np.abs(out['logits']).sum(), total, rtol=1e-5)
  np.testing.assert_allclose(np.abs(out['encoder_last_hidden_state']).sum(), encoder, rtol=1e-5)
