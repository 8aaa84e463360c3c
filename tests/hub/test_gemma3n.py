"""Gemma 3n: the language model of a multimodal checkpoint, and unsupported configs."""

import json

import numpy as np
import pytest
import safetensors.numpy

from tests.hub.decoders_2025 import CASES
from tests.hub.published import D, V
import tfm
from tfm.core import errors
from tfm.hub.tensors import SAFE
from tfm.zoo import weights

TEXT = {**CASES['gemma3n'].fields, 'model_type': 'gemma3n_text'}


def made(folder, monkeypatch):
  """Return a multimodal model of transformers with one-matrix towers, and write its folder."""
  import torch
  import transformers
  from transformers.models.gemma3n import modeling_gemma3n

  from tests.oracles import copying

  whole = transformers.AutoModel.from_config
  of_text = lambda c: whole(c) if c.model_type == 'gemma3n_text' else torch.nn.Linear(3, 2)
  monkeypatch.setattr(modeling_gemma3n.AutoModel, 'from_config', of_text)
  sizes = {'hidden_size': 8, 'vocab_size': 4}
  config = transformers.Gemma3nConfig(
    text_config=TEXT,
    vision_config={**sizes, 'vocab_offset': V},
    audio_config={**sizes, 'vocab_offset': V + 4},
  )
  torch.manual_seed(0)
  theirs = copying.randomized(transformers.Gemma3nForConditionalGeneration(config), 0.1)
  theirs.save_pretrained(folder)
  return theirs


@pytest.mark.oracle
def test_language_model_matches_transformers(tmp_path, monkeypatch, capsys):
  import torch

  theirs = made(tmp_path / 'theirs', monkeypatch)
  tensors = safetensors.numpy.load_file(tmp_path / 'theirs' / SAFE)
  # Published checkpoints store unused keys of layers that borrow keys.
  tensors['model.language_model.layers.5.self_attn.k_proj.weight'] = np.ones((24, D), np.float32)
  safetensors.numpy.save_file(tensors, tmp_path / 'theirs' / SAFE, metadata={'format': 'pt'})
  m = tfm.load(tmp_path / 'theirs')
  assert 'image and audio tensors' in capsys.readouterr().err
  ids = np.random.default_rng(0).integers(1, V, (2, 12))
  with torch.no_grad():
    expected = theirs(input_ids=torch.tensor(ids)).logits.numpy()
  np.testing.assert_allclose(
    m.apply(input_ids=ids)['logits'], expected, atol=2e-5 * np.abs(expected).max(), rtol=0
  )


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'num_kv_shared_layers': 5},
      r'num_kv_shared_layers is 5 of 6 layers, and a layer type of these layers is missing',
    ),
    (
      {'intermediate_size': [8, 8]},
      r'intermediate_size is \[8, 8\]\. Expected a number for each of 6 layers',
    ),
    (
      {'activation_sparsity_pattern': 0.5},
      r'activation_sparsity_pattern is 0\.5\. Expected a number for each',
    ),
    ({'altup_active_idx': 1}, r'altup_active_idx is 1\. Expected 0, the only'),
    ({'altup_correct_scale': False}, r'altup_correct_scale is False\. Expected True, the only'),
  ],
)
def test_unsupported_configs_raise(fields, message):
  with pytest.raises(errors.UserError, match=message):
    weights.published(json.loads(json.dumps({**TEXT, **fields})))
