"""Tiny models of every topology and position, with weights that give varied tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tfm.model.spec import Block, Model, Segment, Tower
from tfm.model.transformer import param_shapes
from tfm.parts.absolute.learned import Learned
from tfm.parts.absolute.sinusoidal import Sinusoidal
from tfm.parts.cross.attention import CrossAttention
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.base import RESIDUAL
from tfm.parts.mask.base import Mask
from tfm.parts.mask.prefix import Prefix
from tfm.parts.mask.window import Window
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.mla import MLA
from tfm.parts.relative.alibi import ALiBi
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.t5 import T5Bias

VOCAB = 61


def decoder(mixer, **fields):
  """Return a decoder of two layers with `mixer`, 32 wide."""
  segments = (Segment((Block(mixer, Mlp(48)),), 2),)
  heads = {'lm': Lm(tied=False)}
  return Model(
    **{'embed': Tokens(VOCAB), 'd_model': 32, 'segments': segments, 'heads': heads, **fields}
  )


def _encdec(mixer=Attention(4), absolute=Learned(48), **fields):
  encoder = Tower(
    segments=(Segment((Block(Attention(4, mask=Mask()), Mlp(48)),), 2),),
    absolute=absolute,
    **fields,
  )
  block = Block(mixer, Mlp(48), cross=CrossAttention(4))
  return Model(
    Tokens(VOCAB),
    32,
    (Segment((block,), 2),),
    absolute,
    heads={'lm': Lm(tied=False)},
    towers={'encoder': encoder},
    **fields,
  )


MODELS = {
  'rope_gqa': decoder(Attention(4, 2, 8, RoPE(base=100.0))),
  'alibi_mqa': decoder(Attention(4, 1, relative=ALiBi())),
  't5': decoder(Attention(4, relative=T5Bias(8, 16))),
  't5_shared': decoder(Attention(4), shared_relative=T5Bias(8, 16)),
  'learned': decoder(Attention(4, bias='qkvo'), absolute=Learned(48)),
  'sinusoidal': decoder(
    Attention(4, cap=5.0, sink=True), absolute=Sinusoidal(), embed=Tokens(VOCAB, scale=2.0)
  ),
  'window': decoder(Attention(4, relative=RoPE(base=100.0), mask=Window(4))),
  'prefix': decoder(Attention(4, mask=Prefix()), absolute=Learned(48)),
  'mla': decoder(MLA(4, 24, 16, 8, 4, 12, RoPE(base=100.0, layout='interleaved'))),
  'shared': Model(
    Tokens(VOCAB), 32, (Segment((Block(Attention(4), Mlp(48)),), 3, shared=True),), Learned(48)
  ),
  'encdec': _encdec(),
  'encdec_t5': _encdec(absolute=Sinusoidal(), shared_relative=T5Bias(8, 16)),
}


@functools.cache
def weights(spec, seed=2):
  """Return weights eight times larger than initial ones, so that logits depend on every token.

  numpy draws them, because compiling `init` would take longer than decoding."""
  rng = np.random.default_rng(seed)

  def draw(path, a):
    name, of = path[-1].key, path[-2].key
    large = 8 if a.ndim > 1 else 1
    if name in ('scale', 'bias'):
      return jnp.full(a.shape, large if name == 'scale' else 0.0, a.dtype)
    std = 0.02 * (0.5 if of in RESIDUAL else 1)
    return jnp.asarray(large * std * rng.standard_normal(a.shape), a.dtype)

  return jax.tree.map_with_path(draw, param_shapes(spec))
