"""Phi-3 with LongRoPE: angles for short and for long sequences match transformers."""

import jax
import numpy as np
import pytest

from tests.hub import decoders_llama, published
import tfm
from tfm import hub, zoo
from tfm.cli import main
from tfm.core import errors
from tfm.model.serving import serving
from tfm.model.transformer import apply
from tfm.zoo import weights

ORIGINAL = 8


@pytest.fixture(scope='module')
def both(tmp_path_factory):
  return published.build(
    decoders_llama.CASES['phi3-longrope'], tmp_path_factory.mktemp('longrope') / 'theirs'
  )


@pytest.mark.oracle
@pytest.mark.parametrize('length', [ORIGINAL, 12])
def test_angles_match_transformers_at_both_lengths(both, length):
  import torch

  m = hub.load(both.folder, length=length)
  ids = both.inputs['input_ids'][:1, :length]
  with torch.no_grad():
    theirs = both.theirs(torch.tensor(ids, dtype=torch.long)).logits.numpy()
  ours = jax.jit(lambda p: apply(m.spec, p, input_ids=ids)['logits'])(m.params)
  np.testing.assert_allclose(ours, theirs, atol=2e-5 * max(1, np.abs(theirs).max()), rtol=0)
  if length > ORIGINAL:
    assert jax.tree.all(jax.tree.map(np.array_equal, m.params, both.ours.params))
    return
  # With a short length, long sequences raise an error. The export has both sets.
  with pytest.raises(errors.UserError, match=r'input_ids has 12 tokens.*Expected at most 8'):
    apply(m.spec, m.params, input_ids=both.inputs['input_ids'])
  values, found = hub.class_of(m.spec)
  assert values['max_position_embeddings'] == 64
  assert found.spec == both.ours.spec


CONFIG = {
  'model_type': 'phi3', 'architectures': ['Phi3ForCausalLM'], 'hidden_size': 32,
  'intermediate_size': 48, 'num_attention_heads': 4, 'num_hidden_layers': 2, 'vocab_size': 61,
  'max_position_embeddings': 131_072, 'original_max_position_embeddings': 4096,
  'rope_theta': 10_000.0,
}  # fmt: skip


@pytest.mark.parametrize('name', ['su', 'yarn', 'longrope'])
def test_older_names_of_longrope_load(name):
  longrope = {
    'type': name,
    'short_factor': [1.0, 1.1, 1.2, 1.3],
    'long_factor': [1.0, 2.0, 3.0, 4.0],
  }
  spec = weights.published(CONFIG | {'rope_scaling': longrope}).spec
  scaling = spec.segments[0].pattern[0].mixer.relative.scaling
  assert (scaling.original, scaling.length, scaling.long) == (4096, 131_072, (1.0, 2.0, 3.0, 4.0))
  short = serving(spec, 4096).segments[0].pattern[0].mixer.relative
  assert short.scaling.served == short.max_positions == 4096
  base = 10_000.0 ** (-np.arange(0, 8, 2) / 8)
  for scaled, factors in ((scaling, scaling.long), (short.scaling, scaling.short)):
    frequency, attention = scaled.scale(base, 10_000.0)
    np.testing.assert_allclose(frequency, base / np.array(factors))
    # Both are scaled for the published length.
    assert attention == pytest.approx((1 + np.log(32) / np.log(4096)) ** 0.5)


def test_length_without_effect_raises_an_error(tmp_path, capsys):
  spec = zoo.tiny(zoo.get('llama3.2-1b'))
  params = jax.tree.map(
    lambda x: np.zeros(x.shape, x.dtype), tfm.model.transformer.param_shapes(spec)
  )
  hub.export_hf(spec, params, tmp_path / 'llama')
  with pytest.raises(
    errors.UserError, match='length=64: no position of the model depends on the length'
  ):
    tfm.load(tmp_path / 'llama', length=64)
  assert (
    main.run(['generate', f'--checkpoint={tmp_path / "llama"}', '--prompt=a', '--length=64']) == 2
  )
  assert 'length=64: no position' in capsys.readouterr().err
