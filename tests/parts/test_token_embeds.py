"""Task types, mask tokens and early norms of token embeddings, and their errors."""

import jax
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.model.cache import init_cache
from tfm.model.spec import Block, Model, Segment
from tfm.model.transformer import apply, init
from tfm.parts.act.tanh import Tanh
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.classify import Classify
from tfm.parts.head.lm import Lm, Transform
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm

MASK = 5
IDS = np.asarray([[MASK, 7, 8, 9, MASK, MASK, 3, 4]], np.int32)


def _encoder(embed: Tokens, **fields) -> Model:
  block = Block(Attention(4, mask=Mask()), Mlp(16))
  return Model(embed, 16, (Segment((block,), 1),), **fields)


def _embeddings(spec, **inputs):
  params = jax.jit(lambda key: init(spec, key))(jax.random.key(0))
  return params, np.asarray(
    apply(spec, params, output_hidden_states=True, **inputs)['hidden_states'][0]
  )


def test_mask_tokens_are_zero_and_rescale_the_others():
  params, found = _embeddings(_encoder(Tokens(61, mask_token=MASK)), input_ids=IDS)
  table = np.asarray(params['embed']['table'])
  np.testing.assert_allclose(found[0, 1], table[7] * 0.88 / (1 - 3 / 8), rtol=1e-6)
  assert not found[0, [0, 4, 5]].any()


def test_mask_tokens_rescale_their_own_document_only():
  spec = _encoder(Tokens(61, mask_token=MASK))
  packed = _embeddings(
    spec, input_ids=IDS, segment_ids=np.asarray([[1, 1, 1, 1, 2, 2, 2, 0]], np.int32)
  )[1]
  alone = _embeddings(spec, input_ids=IDS[:, 4:7])[1]
  np.testing.assert_allclose(packed[:, 4:7], alone, rtol=1e-6)


def test_task_types_add_a_table_entry():
  spec = _encoder(Tokens(61, tasks=3))
  params, first = _embeddings(spec, input_ids=IDS)
  other = _embeddings(spec, input_ids=IDS, task_type_ids=np.full_like(IDS, 2))[1]
  rows = np.asarray(params['embed']['tasks'])
  np.testing.assert_allclose(
    other - first, np.broadcast_to(rows[2] - rows[0], first.shape), atol=1e-6
  )


@pytest.mark.parametrize(
  ('embed', 'inputs', 'message'),
  [
    (Tokens(61), {'task_type_ids': IDS}, 'the model has no task types'),
    (
      Tokens(61, mask_token=MASK),
      {'cache': 8},
      'the share of mask tokens, which a cache does not store',
    ),
  ],
)
def test_inputs_without_a_use_are_errors(embed, inputs, message):
  spec = Model(embed, 16, (Segment((Block(Attention(4), Mlp(16)),), 1),))
  if 'cache' in inputs:
    inputs = {'cache': init_cache(spec, 1, inputs['cache'])}
  params = jax.eval_shape(lambda key: init(spec, key), jax.random.key(0))
  with pytest.raises(errors.UserError, match=message):
    apply(spec, params, input_ids=IDS, **inputs)


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    (
      _encoder(Tokens(61, early_norm=True)),
      'early_norm=true needs a norm, and norm=none',
    ),
    (_encoder(Tokens(61, mask_token=61)), 'mask_token=61 is not a token id'),
    (
      _encoder(Tokens(61), heads={'classify': Classify(late=True)}),
      'late=true pools after the hidden layer',
    ),
    (
      _encoder(Tokens(61), heads={'classify': Classify(hidden=Tanh(), pick='each', late=True)}),
      'late=true pools after the hidden layer',
    ),
    (
      _encoder(Tokens(61), heads={'lm': Lm(transform=Transform(norm=LayerNorm(), dim=24))}),
      'lm is tied to a table of width 16',
    ),
  ],
)
def test_inconsistent_token_fields_are_errors(spec, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(spec)
