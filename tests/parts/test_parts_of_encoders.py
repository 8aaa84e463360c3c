"""Parts of encoders: errors, attention patterns, and prepended vectors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.model.cache import init_cache
from tfm.model.spec import Block, Model, Segment
from tfm.model.transformer import apply, init, param_shapes
from tfm.parts.act.relu import Relu
from tfm.parts.adapter import LoRA
from tfm.parts.embed.globals import Globals
from tfm.parts.embed.tokens import Tokens
from tfm.parts.embed.trigrams import Trigrams
from tfm.parts.ffn.grouped_mlp import GroupedMlp
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.ffn.moe import Moe
from tfm.parts.head.lm import Transform
from tfm.parts.head.partly_tied import PartlyTied
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.bigbird import BigBirdAttention
from tfm.parts.mixer.bottleneck import Bottleneck
from tfm.parts.mixer.global_local import GlobalLocal
from tfm.parts.mixer.grouped import GroupedAttention
from tfm.parts.mixer.span_conv import SpanConv
from tfm.parts.norm.adaptive import AdaptiveNorm
from tfm.parts.resample.stride import Stride
from tfm.parts.router.language import Language

D = 16
IDS = np.random.default_rng(0).integers(1, 64, (1, 12)).astype(np.int32)


def _model(
  mixer=Attention(2, mask=Mask()), ffn=Mlp(24, Relu()), embed=Tokens(64), **fields
) -> Model:
  """Return a model with one layer."""
  block = {n: fields.pop(n) for n in ('second_ffn',) if n in fields}
  return Model(embed, D, (Segment((Block(mixer, ffn, **block),)),), **fields)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'mixer': GroupedAttention(2, v_groups=3)},
      'v_groups=3 does not divide 16 and 16. Expected a common divisor',
    ),
    ({'ffn': GroupedMlp(24, up_groups=16)}, 'up_groups=16 does not divide 16 and 24'),
    ({'ffn': GroupedMlp(0)}, 'd_ff=0 is not a width. Expected at least 1'),
    ({'ffn': Moe(4, shared=GroupedMlp(24, up_groups=16))}, 'shared: up_groups=16 does not divide'),
    ({'mixer': SpanConv(2, span=4)}, 'span=4 has no middle. Expected an odd number of tokens'),
    ({'mixer': Bottleneck(0, Attention(2))}, 'width=0 is not a size. Expected at least 1'),
    ({'mixer': Bottleneck(9, Attention(2))}, 'attention: heads=2 does not divide d_model=9'),
    (
      {'mixer': Bottleneck(8, Attention(2), norm=AdaptiveNorm())},
      'norm: needs a condition, which a bottleneck lacks',
    ),
    (
      {'mixer': BigBirdAttention(2, block=0)},
      'block=0, random=3 are not sizes. Expected at least 1 and at least 0',
    ),
    (
      {'mixer': GlobalLocal(2, block=4, shift=4)},
      'block=4, shift=4 are not sizes. Expected a block of at least 1, and a shift',
    ),
    ({'mixer': GlobalLocal(2, input_norm=AdaptiveNorm())}, 'input_norm: needs a condition'),
    (
      {'embed': Trigrams(64, dim=8, back=True)},
      'back=true: trigrams are only projected to d_model. Expected back=false',
    ),
    (
      {'embed': Globals(64, count=0)},
      'count=0 is not a number of vectors. Expected at least 1, or embed=tokens',
    ),
    (
      {'embed': Globals(64, dim=8)},
      'dim=8: the vectors are as wide as the model. Expected dim=none',
    ),
    (
      {'heads': {'lm': PartlyTied()}},
      'the token table is as wide as the model .16.. Expected a smaller embed.dim, or lm=lm',
    ),
    (
      {'embed': Tokens(64, dim=8), 'heads': {'lm': PartlyTied(tied=False)}},
      'tied=false: lm=partly_tied uses the token table. Expected tied=true',
    ),
    (
      {'embed': Tokens(64, dim=8), 'heads': {'lm': PartlyTied(transform=Transform(dim=4))}},
      'transform.dim=4: the head needs the width of the model. Expected transform.dim=none',
    ),
    (
      {'ffn': Moe(4, Language(languages=('a',)))},
      'languages has 1 names for 4 experts. Expected one name per expert, or none',
    ),
    (
      {'ffn': Moe(4, Language(default=4))},
      'default=4 is not a language index. Expected 0 to 3, or none',
    ),
    (
      {'ffn': Moe(4, Language(balance=0.1))},
      'balance=0.1, z=0.0: the routing is not learned. Expected 0 and 0',
    ),
  ],
)
def test_invalid_fields_raise(fields, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(_model(**fields))


def test_prepended_vectors_with_resampling_raise():
  spec = _model(embed=Globals(64, count=2), heads={})
  spec = dataclasses.replace(
    spec, segments=(dataclasses.replace(spec.segments[0], resample=Stride()),)
  )
  with pytest.raises(
    errors.ConfigError,
    match='its prepended vectors cannot be removed, as segments',
  ):
    config.validate(spec)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'mixer': SpanConv(2)},
      'span_conv: convolutions include later tokens. Expected an encoder without a cache',
    ),
    (
      {'mixer': BigBirdAttention(2)},
      'bigbird: tokens attend to the last block. Expected an encoder',
    ),
    (
      {'mixer': GlobalLocal(2)},
      'global_local: tokens attend to later ones. Expected an encoder without a cache',
    ),
    (
      {'embed': Trigrams(64)},
      'trigrams: an embedding depends on the next token. Expected an encoder',
    ),
    (
      {'embed': Globals(64)},
      'globals: the global vectors attend to later tokens. Expected an encoder',
    ),
  ],
)
def test_caches_of_encoders_raise(fields, message):
  spec = _model(**fields)
  assert not spec.causal
  cache = init_cache(spec, 1, 12)
  with pytest.raises(errors.UserError, match=message):
    jax.eval_shape(lambda p: apply(spec, p, input_ids=IDS, cache=cache), param_shapes(spec))


@pytest.mark.parametrize(
  ('fields', 'inputs', 'message'),
  [
    ({}, {'lang_ids': IDS % 2}, 'lang_ids are given, but no layer has a part for each language'),
    (
      {'ffn': Moe(2, Language(default=None), Mlp(8))},
      {},
      'lang_ids is missing, and router.default is none',
    ),
    (
      {'second_ffn': Moe(2, Language(), Mlp(8))},
      {'lang_ids': IDS % 2 + 1},
      'Expected languages of at least 0 and bel',
    ),
    (
      {'embed': Globals(64)},
      {'segment_ids': np.full((1, 12), 2)},
      'segment_ids packs several documents into one sequence',
    ),
  ],
)
def test_invalid_inputs_raise(fields, inputs, message):
  spec = _model(**fields)
  with pytest.raises(errors.UserError, match=message):
    jax.eval_shape(lambda p: apply(spec, p, input_ids=IDS, **inputs), param_shapes(spec))


def test_adapters_of_grouped_projections_raise():
  spec = _model(GroupedAttention(2, mask=Mask()), adapter=LoRA(2, targets=('q', 'o')))
  with pytest.raises(
    errors.UserError, match='adapter: q is a grouped projection, which does not support adapters'
  ):
    param_shapes(spec)


def _reached(spec, position):
  """Return the positions of the outputs that depend on the token at a position."""
  other = IDS.copy()
  other[0, position] = 1 + other[0, position] % 63
  params = init(spec, jax.random.key(0))
  run = jax.jit(lambda ids: apply(spec, params, input_ids=ids)['last_hidden_state'])
  return np.flatnonzero(np.abs(run(IDS) - run(jnp.asarray(other))).max(-1)[0] > 1e-7).tolist()


def test_long_documents_attend_by_blocks():
  sparse = _model(BigBirdAttention(2, block=1, random=1), ffn=None)
  assert _reached(sparse, 5) == [0, 4, 5, 6, 11]
  full = _model(BigBirdAttention(2, block=2, random=1), ffn=None)
  assert _reached(full, 5) == list(range(12))


def test_shifted_blocks_begin_earlier():
  assert _reached(_model(GlobalLocal(2, block=4), ffn=None), 5) == [4, 5, 6, 7]
  assert _reached(_model(GlobalLocal(2, block=4, shift=2), ffn=None), 5) == [2, 3, 4, 5]


def test_prepended_vectors_are_not_returned():
  spec = _model(GlobalLocal(2, block=4), embed=Globals(64, count=3))
  out = jax.eval_shape(
    lambda p: apply(spec, p, input_ids=IDS, output_hidden_states=True), param_shapes(spec)
  )
  assert out['logits'].shape == (1, 12, 64)
  assert [h.shape for h in out['hidden_states']] == [(1, 12, D)] * 2
