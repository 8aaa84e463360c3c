"""Small models of tfm, and their parameters in the notation of the formal algorithms."""

import jax

import tfm
from tfm import formal
from tfm.core.precision import Precision
from tfm.model.spec import Block, Model, Segment, Tower
from tfm.parts.absolute.learned import Learned
from tfm.parts.act import Gelu, Relu
from tfm.parts.context import Run
from tfm.parts.cross.attention import CrossAttention
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Mlp
from tfm.parts.head.lm import Lm, Transform
from tfm.parts.mask import Causal, Mask
from tfm.parts.mixer import Attention
from tfm.parts.norm import LayerNorm
from tfm.parts.residual_layout import Post, Pre

VOCAB, WIDTH, POSITIONS, LAYERS = 11, 8, 9, 2
#: The algorithms add nothing to a variance.
NORM = LayerNorm(eps=0.0)
PRECISION = Precision('float64', 'float64', 'float64')
RUN = Run(PRECISION)


def _layers(mask, layout, act, cross=None):
  mixer = Attention(2, head_dim=3, bias='qkvo', mask=mask)
  block = Block(mixer, Mlp(7, act, bias=True), NORM, layout, cross)
  return (Segment((block,), LAYERS),)


def _model(segments, norm=None, towers=(), transform=None):
  return Model(
    Tokens(VOCAB),
    WIDTH,
    segments,
    Learned(POSITIONS),
    norm,
    heads={'lm': Lm(tied=False, transform=transform)},
    towers=dict(towers),
  )


def _encoder_decoder(layout, norm):
  cross = CrossAttention(2, head_dim=3, bias='qkvo')
  encoder = Tower(segments=_layers(Mask(), layout, Relu()), absolute=Learned(POSITIONS), norm=norm)
  decoder = _layers(Causal(), layout, Relu(), cross)
  return _model(decoder, norm, {'encoder': encoder})


ENCODER_DECODER = _encoder_decoder(Post(), None)
PRE_NORM_ENCODER_DECODER = _encoder_decoder(Pre(), NORM)
ENCODER = _model(_layers(Mask(), Post(), Gelu()), transform=Transform(Gelu(), NORM))
DECODER = _model(_layers(Causal(), Pre(), Gelu()), NORM)


def params_of(spec, seed=0):
  """Return float64 parameters. Biases and scales are random too."""
  params = tfm.init(spec, jax.random.key(seed), RUN)
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
  moved = []
  for key, leaf in zip(keys, leaves, strict=True):
    moved.append(leaf + 0.3 * jax.random.normal(key, leaf.shape, leaf.dtype))
  return jax.tree.unflatten(tree, moved)


def probabilities(spec, params, **inputs):
  """Return the probabilities of a model, one column for each token, as in the paper."""
  inputs = {name: ids[None] for name, ids in inputs.items()}
  logits = tfm.apply(spec, params, run=RUN, **inputs)['logits']
  return jax.nn.softmax(logits[0], -1).T


def theta_of(spec, params):
  """Return the parameters of a model in the notation of the paper."""
  if spec is DECODER:
    return formal.decoder_only(params)
  if spec is ENCODER:
    return formal.encoder_only(params)
  # Both sequences have the same position table in the paper.
  assert spec.encoder.absolute == spec.absolute
  body = formal.encoder_decoder(params)
  if spec is ENCODER_DECODER:
    return body
  norms = (
    formal.Scale(tower['norm']['scale'], tower['norm']['bias'])
    for tower in (params['encoder'], params)
  )
  return formal.PreNormEncoderDecoder(body, *norms)
