"""DeBERTa v2's head loads from both of its names in checkpoints (`legacy`)."""

import jax
import numpy as np
import pytest

import tfm
from tfm.core import errors
from tfm.hub.tensors import open_tensors

pytestmark = pytest.mark.oracle

FIELDS = {
  'vocab_size': 61, 'hidden_size': 16, 'num_hidden_layers': 1, 'num_attention_heads': 2,
  'intermediate_size': 24, 'max_position_embeddings': 16, 'conv_kernel_size': 3,
}  # fmt: skip


def test_legacy_head_names_of_deberta_round_trip(tmp_path):
  from safetensors.numpy import save_file
  import torch
  import transformers

  released, written = tmp_path / 'released', tmp_path / 'written'
  theirs = transformers.DebertaV2ForMaskedLM(
    transformers.DebertaV2Config(**FIELDS, legacy=False)
  ).eval()
  with torch.no_grad():
    for p in theirs.parameters():
      p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    ids = torch.arange(1, 13).reshape(2, 6)
    expected = theirs(input_ids=ids).logits.numpy()
  theirs.save_pretrained(released)
  stored = open_tensors(released)
  tensors = {name: stored[name] for name in stored}
  # Additional tensors in the released files, which transformers ignores.
  save_file(
    tensors | {'mask_predictions.dense.weight': np.ones((2, 2), np.float32)},
    released / 'model.safetensors',
  )
  ours = tfm.load(released)
  logits = jax.jit(lambda p: tfm.apply(ours.spec, p, input_ids=ids.numpy())['logits'])(ours.params)
  np.testing.assert_allclose(logits, expected, atol=1e-5)
  tfm.export_hf(ours.spec, ours.params, written)
  back = open_tensors(written)
  for theirs, legacy in (('dense.weight', 'transform.dense.weight'), ('bias', 'bias')):
    np.testing.assert_array_equal(
      back[f'cls.predictions.{legacy}'], tensors[f'lm_predictions.lm_head.{theirs}']
    )
  with torch.no_grad():
    again = transformers.DebertaV2ForMaskedLM.from_pretrained(written).eval()
    np.testing.assert_array_equal(again(input_ids=ids).logits.numpy(), expected)

  del tensors['lm_predictions.lm_head.bias']
  save_file(tensors, released / 'model.safetensors')
  with pytest.raises(errors.UserError, match=r'missing \(1\):\s+cls\.predictions\.bias \[61\]$'):
    tfm.load(released)
