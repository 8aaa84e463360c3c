"""Transient-global attention: block boundaries, packed documents and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.model.cache import init_cache
from tfm.model.spec import Block, Model, Segment
from tfm.model.transformer import apply, param_shapes
from tfm.parts.attend import Blockwise, DenseAttention
from tfm.parts.context import Run
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu
from tfm.parts.mask import Window
from tfm.parts.mixer import Attention, Transient
from tfm.parts.mixer.transient import _blocks
from tfm.parts.relative import RoPE, T5Bias

N = 11


def model(relative):
  mixer = Transient(4, 2, 8, relative=relative, mask=Window(2, ahead=True), pool=4)
  return Model(Tokens(64), 32, (Segment((Block(mixer, Glu(48)),), 2),))


SPECS = {'t5': model(T5Bias(8, 16, blocks=True)), 'rope': model(RoPE())}


@pytest.fixture(scope='module', params=SPECS)
def logits(request):
  spec, rng = SPECS[request.param], np.random.default_rng(0)
  params = jax.tree.map(
    lambda s: rng.standard_normal(s.shape).astype(np.float32) * 0.3, param_shapes(spec)
  )

  @jax.jit
  def run(ids, segments):
    kernels = DenseAttention(), Blockwise(8, 8)
    return [
      apply(spec, params, run=Run(attend=k), input_ids=ids, segment_ids=segments)['logits']
      for k in kernels
    ]

  return lambda ids, segments: [
    np.asarray(x) for x in run(jnp.asarray([ids]), jnp.asarray([segments]))
  ]


def test_leftover_tokens_belong_to_the_last_block():
  segments = [0, 0, *[1] * 6, *[2] * 3, *[3] * 8, 0]
  block, slot, ends = (np.asarray(x[0]) for x in _blocks(jnp.asarray([segments]), 4))
  assert block.tolist() == [-1, -1, *[0] * 6, *[-1] * 3, 0, 0, 0, 0, 1, 1, 1, 1, -1]
  assert slot[2:8].tolist() == [0] * 6
  assert slot[11:19].tolist() == [1] * 4 + [2] * 4
  assert np.flatnonzero(ends).tolist() == [5, 14, 18]


def test_padded_packed_and_single_documents_are_equal(logits):
  rng = np.random.default_rng(1)
  text, other = rng.integers(1, 64, N).tolist(), rng.integers(1, 64, 6).tolist()
  alone, tiled = (x[0, :N] for x in logits(text + [0] * 6, [1] * N + [0] * 6))
  np.testing.assert_allclose(tiled, alone, atol=1e-5)
  for ids, segments, at in (
    ([0] * 6 + text, [0] * 6 + [1] * N, 6),
    (other + text, [1] * 6 + [2] * N, 6),
    (text + other, [1] * N + [2] * 6, 0),
  ):
    for one in logits(ids, segments):
      np.testing.assert_allclose(one[0, at : at + N], alone, atol=1e-5)


def test_distant_tokens_are_reached_through_complete_blocks(logits):
  ids = np.random.default_rng(2).integers(1, 63, 17)
  changed = ids.copy()
  changed[0] += 1

  def changed_outputs(n):
    segments = [1] * n + [0] * (17 - n)
    (before, _), (after, _) = logits(ids.tolist(), segments), logits(changed.tolist(), segments)
    return (np.abs(after - before)[0, :n].max(-1) > 1e-6).tolist()

  assert all(changed_outputs(17))
  assert all(changed_outputs(4))
  # Three tokens fill no block; two layers with a window of one token each way reach all of them.
  assert changed_outputs(3) == [True] * 3


def test_cache_and_empty_blocks_are_errors():
  spec, ids = SPECS['rope'], jnp.ones((1, 8), jnp.int32)
  with pytest.raises(errors.UserError, match='transient: block sums depend on later tokens'):
    jax.eval_shape(
      lambda p: apply(spec, p, input_ids=ids, cache=init_cache(spec, 1, 8)), param_shapes(spec)
    )
  with pytest.raises(errors.ConfigError, match='pool=0 is not a block size'):
    config.validate(Transient(pool=0))
  assert not spec.causal
  assert spec.ahead
  assert not spec.masked


def test_t5_blocks_need_a_transient_mixer():
  plain = Block(Attention(4), Glu(48))
  shared = Model(
    Tokens(64), 32, (Segment((plain,), 2),), shared_relative=T5Bias(8, 16, blocks=True)
  )
  own = Model(
    Tokens(64),
    32,
    (Segment((Block(Attention(4, relative=T5Bias(8, 16, blocks=True)), Glu(48)),), 2),),
  )
  for spec, where in (shared, 'shared_relative'), (own, 'segments.0.pattern.0.mixer.relative'):
    with pytest.raises(
      errors.ConfigError, match=f'{where}: blocks=true is for keys that summarise blocks, and no'
    ):
      config.validate(spec)
