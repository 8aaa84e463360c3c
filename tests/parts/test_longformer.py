"""Global tokens of local attention: reach, packed documents and errors."""

import jax
import numpy as np
import pytest

from tfm.core import errors
from tfm.model.cache import init_cache
from tfm.model.spec import Block, Model, Segment
from tfm.model.transformer import apply, param_shapes
from tfm.parts.absolute.learned import Learned
from tfm.parts.attend import Blockwise, DenseAttention
from tfm.parts.context import Run
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.mask.window import Window
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.longformer import Longformer

SPEC = Model(
  Tokens(64),
  32,
  (Segment((Block(Longformer(4, 2, 8, mask=Window(2, ahead=True)), Mlp(48)),), 1),),
  Learned(32),
)
IDS = np.random.default_rng(0).integers(1, 64, (1, 12)).astype(np.int32)
MARKED = np.zeros_like(IDS)
MARKED[0, 4] = 1


@pytest.fixture(scope='module')
def run():
  rng = np.random.default_rng(1)
  params = jax.tree.map(
    lambda s: rng.standard_normal(s.shape).astype(np.float32) * 0.3, param_shapes(SPEC)
  )

  @jax.jit
  def run(inputs):
    return [
      apply(SPEC, params, run=Run(attend=k), **inputs)['logits']
      for k in (DenseAttention(), Blockwise(4, 4))
    ]

  return lambda **inputs: [np.asarray(x) for x in run(inputs)]


def _changed_by(run, place, **inputs):
  """Return the outputs that depend on the token at an index."""
  other = IDS.copy()
  other[0, place] = 1 + other[0, place] % 63
  one, two = (run(input_ids=ids, **inputs)[0] for ids in (IDS, other))
  return np.flatnonzero(np.abs(one - two).max(-1)[0] > 1e-6)


def test_local_tokens_reach_their_window_global_tokens_all(run):
  assert _changed_by(run, 9).tolist() == [8, 9, 10]
  assert _changed_by(run, 9, global_attention_mask=MARKED).tolist() == [4, 8, 9, 10]
  assert _changed_by(run, 4, global_attention_mask=MARKED).tolist() == list(range(12))


def test_packed_documents_with_global_tokens_are_independent(run):
  segments = np.asarray([[1] * 3 + [2] * 8 + [0]], np.int32)
  packed = run(input_ids=IDS, segment_ids=segments, global_attention_mask=MARKED)
  alone = run(input_ids=IDS[:, 3:11], global_attention_mask=MARKED[:, 3:11])
  for one in packed:
    np.testing.assert_allclose(one[:, 3:11], alone[0], atol=1e-5)


@pytest.mark.parametrize(
  ('spec', 'inputs', 'message'),
  [
    (SPEC, {'cache': 12}, 'global tokens attend to later ones'),
    (
      Model(Tokens(64), 32, (Segment((Block(Attention(4, 2, 8), Mlp(48)),), 1),)),
      {'global_attention_mask': MARKED},
      'no layer has global tokens',
    ),
  ],
)
def test_cache_and_unused_global_mask_are_errors(spec, inputs, message):
  if 'cache' in inputs:
    inputs = {'cache': init_cache(spec, 1, inputs['cache'])}
  with pytest.raises(errors.UserError, match=message):
    jax.eval_shape(lambda p: apply(spec, p, input_ids=IDS, **inputs), param_shapes(spec))
