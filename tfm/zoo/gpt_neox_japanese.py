"""GPT-NeoX Japanese (ABEJA, 2022): a sequential GPT-NeoX without biases."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model, depth
from tfm.parts.act.gelu import Gelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.rope import RoPE
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of
from tfm.zoo.gpt_neox import all_rope_parameters
from tfm.zoo.layers import segments

CARD = 'gpt-neox-japanese-2.7b, model card, ABEJA 2022'


def gpt_neox_japanese(depth: int, d: int, heads: int, vocab: int) -> Model:
  """Return a pre-norm decoder with RoPE; only the last attention output has a bias.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    vocab: size of the vocabulary.

  Returns:
    The spec of the model.
  """
  block = Block(
    Attention(heads, relative=RoPE(), dropout=0.1), Mlp(4 * d, Gelu(), bias=False), LayerNorm(1e-5)
  )
  return _model(vocab, d, block, depth, 0.0, Lm())


def _model(vocab: int, d: int, block: Any, depth: int, dropout: float, head: Lm) -> Model:
  block = dataclasses.replace(block, dropout=dropout)
  last = dataclasses.replace(block, mixer=dataclasses.replace(block.mixer, bias='o'))
  layers = segments([block] * (depth - 1) + [last])
  return Model(
    Tokens(vocab), d, layers, heads={'lm': head}, norm=block.norm, init=Normal(depth_scaled=False)
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.skip('is_decoder', 'max_position_embeddings')
  d = c['hidden_size']
  rope = c.rope(c.get('rotary_emb_base', 1e4), fraction=c.get('rotary_pct', 1.0))
  attention = Attention(
    c['num_attention_heads'], relative=rope, dropout=c.get('attention_dropout', 0.1)
  )
  ffn = Mlp(
    int(d * c.get('intermediate_multiple_size', 4)), c.act('hidden_act', 'gelu'), bias=False
  )
  block = Block(attention, ffn, LayerNorm(c.get('layer_norm_eps', 1e-5)))
  head = Lm(c.get('tie_word_embeddings', True))
  return _model(
    c['vocab_size'], d, block, c['num_hidden_layers'], c.get('hidden_dropout', 0.0), head
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  return {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'num_hidden_layers': depth(m),
    'num_attention_heads': block.mixer.heads,
    'intermediate_multiple_size': block.ffn.d_ff // m.d_model,
    'hidden_act': name_of(block.ffn.act),
    'rope_parameters': all_rope_parameters(block.mixer.relative),
    'layer_norm_eps': block.norm.eps, 'attention_dropout': block.mixer.dropout,
    'hidden_dropout': block.dropout,
  }  # fmt: skip


MODELS = {
  'gpt-neox-japanese-2.7b': Entry(
    gpt_neox_japanese(32, 2560, 32, 32_000), 2_598_837_760, '2.7B', CARD
  ),
}
