"""Captured hidden states and attention maps match transformers."""

import jax
import numpy as np
import pytest

from tests.hub import decoders, encoders, published, seq2seq
from tfm.model.transformer import apply

pytestmark = pytest.mark.oracle
CASES = {
  n: c for cases in (decoders.CASES, encoders.CASES, seq2seq.CASES) for n, c in cases.items()
}
NAMES = ['gpt2', 'llama', 'bert', 't5']


@pytest.fixture(scope='module', params=NAMES)
def both(request, tmp_path_factory):
  return published.build(CASES[request.param], tmp_path_factory.mktemp('inside') / 'theirs')


def test_captured_activations_match_transformers(both):
  import torch

  inputs = {n: torch.tensor(v, dtype=torch.long) for n, v in both.inputs.items()}
  if both.ours.spec.encoder is None:
    inputs['position_ids'] = (inputs['attention_mask'].cumsum(1) - 1).clamp(min=0)
  with torch.no_grad():
    theirs = both.theirs(**inputs, output_hidden_states=True, output_attentions=True)
  run = lambda params, **capture: apply(both.ours.spec, params, **both.inputs, **capture)
  ours = jax.jit(lambda p: run(p, output_hidden_states=True, output_attentions=True))(
    both.ours.params
  )
  plain = jax.jit(run)(both.ours.params)
  np.testing.assert_allclose(ours['last_hidden_state'], plain['last_hidden_state'], atol=1e-6)
  names = [n for n in ours if n.endswith(('hidden_states', 'attentions'))]
  assert len(names) == (2 if both.ours.spec.encoder is None else 5)
  mask = both.inputs['attention_mask'] > 0
  for name in names:
    assert len(ours[name]) == len(theirs[name])
    real = np.ones((3, 7), bool) if name.startswith(('decoder', 'cross')) else mask
    for mine, yours in zip(ours[name], theirs[name], strict=True):
      mine, yours = np.asarray(mine), yours.numpy()
      if name.endswith('attentions'):
        mine, yours = np.moveaxis(mine, 1, 2), np.moveaxis(yours, 1, 2)
      np.testing.assert_allclose(
        mine[real], yours[real], atol=2e-5 * max(1, np.abs(yours[real]).max()), err_msg=name
      )


def test_uncaptured_outputs_are_absent(both):
  out = jax.eval_shape(lambda p: apply(both.ours.spec, p, **both.inputs), both.ours.params)
  assert not [n for n in out if n.endswith(('hidden_states', 'attentions'))]
