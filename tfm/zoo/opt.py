"""OPT (Meta, 2022): a pre-norm decoder with learned positions and ReLU."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.relu import Relu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.residual_layout.post import Post
from tfm.parts.residual_layout.pre import Pre
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of

PAPER = 'OPT: Open Pre-trained Transformer Language Models, arXiv:2205.01068'

#: Residual layout by `do_layer_norm_before`.
LAYOUTS = {True: Pre(), False: Post()}


def opt(depth: int, d: int, heads: int) -> Model:
  """Return a tied pre-norm decoder with learned positions, ReLU and biases.

  The first two rows of the position table are unused.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec of the model.
  """
  norm = LayerNorm(1e-5)
  block = Block(Attention(heads, bias='qkvo'), Mlp(4 * d, Relu()), norm, dropout=0.1)
  return Model(
    Tokens(50_272),
    d,
    (Segment((block,), depth),),
    Learned(2048, 2),
    norm,
    init=Normal(depth_scaled=False),
  )


def opt_350m() -> Model:
  """Return OPT 350M, which is post-norm and has a token table of half the width."""
  spec = opt(24, 1024, 16)
  (block,) = spec.segments[0].pattern
  segment = Segment((dataclasses.replace(block, residual_layout=Post()),), 24)
  return dataclasses.replace(
    spec, embed=Tokens(spec.vocab, dim=512, back=True), segments=(segment,)
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  d, bias, norm = c['hidden_size'], c.get('enable_bias', True), LayerNorm(1e-5)
  width = c.get('word_embed_proj_dim', d)
  c.only(layer_norm_elementwise_affine=True, layerdrop=0.0, _remove_final_layer_norm=False)
  c.skip('activation_dropout')
  attention = Attention(
    c['num_attention_heads'], bias='qkvo' if bias else '', dropout=c.get('attention_dropout', 0.0)
  )  # fmt: skip
  ffn = Mlp(c['ffn_dim'], c.act('activation_function', 'relu'), bias)
  residual_layout, dropout = LAYOUTS[c.get('do_layer_norm_before', True)], c.get('dropout', 0.1)
  return Model(
    dataclasses.replace(
      Tokens() if width == d else Tokens(dim=width, back=True), vocab=c['vocab_size']
    ),
    d,
    (
      Segment(
        (Block(attention, ffn, norm, residual_layout, dropout=dropout),), c['num_hidden_layers']
      ),
    ),
    Learned(c.get('max_position_embeddings', 2048), 2),
    norm,
    heads={'lm': Lm(c.get('tie_word_embeddings', True))},
    init=Normal(depth_scaled=False),
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  return {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'word_embed_proj_dim': m.d_out,
    'num_hidden_layers': depth(m),
    'num_attention_heads': block.mixer.heads, 'ffn_dim': block.ffn.d_ff,
    'max_position_embeddings': m.max_positions,
    'activation_function': name_of(block.ffn.act),
    'do_layer_norm_before': block.residual_layout == LAYOUTS[True],
    'enable_bias': block.ffn.bias, 'dropout': block.dropout,
    'attention_dropout': block.mixer.dropout,
  }  # fmt: skip


MODELS = {
  'opt-125m': Entry(opt(12, 768, 12), 125_239_296, '125M', PAPER),
  'opt-350m': Entry(opt_350m(), 331_196_416, '350M', PAPER),
  'opt-1.3b': Entry(opt(24, 2048, 32), 1_315_758_080, '1.3B', PAPER),
  'opt-6.7b': Entry(opt(32, 4096, 32), 6_658_473_984, '6.7B', PAPER),
  'opt-66b': Entry(opt(64, 9216, 72), 65_719_701_504, '66B', PAPER),
  'opt-175b': Entry(opt(96, 12_288, 96), 174_604_468_224, '175B', PAPER),
}
