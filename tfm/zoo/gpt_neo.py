"""GPT-Neo (EleutherAI, 2021): GPT-2's block with alternating full and local layers."""

import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Block, Model, depth
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.zoo import gpt2
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of
from tfm.zoo.layers import causal_mask, choose, layers_of, segments, window_of

PAPER = (
  'GPT-Neo: Large Scale Autoregressive Language Modeling with Mesh-Tensorflow, EleutherAI 2021'
)


def gpt_neo(depth: int, d: int, heads: int, window: int = 256) -> Model:
  """Return a GPT-2 with local layers, unscaled scores and a bias in the output projection only.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    window: number of tokens that a local layer attends to.

  Returns:
    The spec of the model.
  """
  norm, mixer = LayerNorm(1e-5), Attention(heads, bias='o', scale=1.0)
  blocks = [
    Block(dataclasses.replace(mixer, mask=causal_mask(w)), Mlp(4 * d, GeluTanh()), norm)
    for w in (None, window)
  ]
  return Model(
    Tokens(50_257),
    d,
    segments(blocks * (depth // 2)),
    Learned(2048),
    norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.skip('attention_layers', *gpt2.SUMMARY)
  d, norm = c['hidden_size'], LayerNorm(c.get('layer_norm_epsilon', 1e-5))
  mixer = Attention(c['num_heads'], bias='o', scale=1.0, dropout=c.get('attention_dropout', 0.0))
  ffn = Mlp(c.get('intermediate_size', 4 * d), c.act('activation_function', 'gelu_new'))
  block = Block(mixer, ffn, norm, dropout=c.get('resid_dropout', 0.0))
  masks = {'global': causal_mask(None), 'local': causal_mask(c.get('window_size', 256))}
  types = [t for some, n in c.get('attention_types', [[['global', 'local'], 12]]) for t in some * n]
  if unknown := sorted({*types} - {*masks}):
    raise errors.UserError(
      f'{c.where}: attention_types: {errors.unknown("value", unknown[0], masks)}'
    )
  if len(types) != c['num_layers']:
    raise errors.UserError(
      f'{c.where}: attention_types has {len(types)} layers. Expected num_layers={c["num_layers"]}.'
    )
  blocks = [
    dataclasses.replace(block, mixer=dataclasses.replace(mixer, mask=masks[t])) for t in types
  ]
  return Model(
    Tokens(c['vocab_size'], dropout=c.get('embed_dropout', 0.0)),
    d,
    segments(blocks),
    Learned(c.get('max_position_embeddings', 2048)),
    norm,
    heads={'lm': Lm(c.get('tie_word_embeddings', True))},
    init=Normal(depth_scaled=False),
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  types = choose((b.mixer.mask.lookback is None for b in layers_of(m)), 'global', 'local')
  return {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'num_layers': depth(m),
    'num_heads': block.mixer.heads,
    'intermediate_size': block.ffn.d_ff, 'max_position_embeddings': m.max_positions,
    'attention_types': [[types, 1]],
    'window_size': window_of(m) or 256, 'activation_function': name_of(block.ffn.act),
    'layer_norm_epsilon': block.norm.eps, 'attention_dropout': block.mixer.dropout,
    'resid_dropout': block.dropout,
    'embed_dropout': m.embed.dropout,
  }  # fmt: skip


MODELS = {
  'gpt-neo-125m': Entry(gpt_neo(12, 768, 12), 125_198_592, '125M', PAPER),
  'gpt-neo-1.3b': Entry(gpt_neo(24, 2048, 16), 1_315_575_808, '1.3B', PAPER),
  'gpt-neo-2.7b': Entry(gpt_neo(32, 2560, 20), 2_651_307_520, '2.7B', PAPER),
}
