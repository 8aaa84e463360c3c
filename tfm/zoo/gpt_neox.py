"""GPT-NeoX (EleutherAI, 2022) and Pythia (2023): parallel branches with a norm each."""

from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.act.base import Act
from tfm.parts.act.gelu import Gelu, GeluTanh
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual_layout.parallel import Parallel
from tfm.parts.residual_layout.pre import Pre
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of, rope_parameters

PAPER = 'GPT-NeoX-20B: An Open-Source Autoregressive Language Model, arXiv:2204.06745'
PYTHIA = (
  'Pythia: A Suite for Analyzing Large Language Models Across Training and Scaling, '
  'arXiv:2304.01373'
)

#: Residual layout by `use_parallel_residual`.
LAYOUTS = {True: Parallel(norms_per_branch=True), False: Pre()}


def gpt_neox(depth: int, d: int, heads: int, vocab: int, act: Act = Gelu()) -> Model:
  """Return an untied parallel-branch decoder with RoPE on a quarter of each head, and biases.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    vocab: size of the vocabulary.
    act: activation of the feed-forward.

  Returns:
    The spec of the model.
  """
  norm = LayerNorm(1e-5)
  attention = Attention(heads, relative=RoPE(fraction=0.25), bias='qkvo')
  block = Block(attention, Mlp(4 * d, act), norm, LAYOUTS[True])
  head = Lm(tied=False)
  return Model(
    Tokens(vocab),
    d,
    (Segment((block,), depth),),
    heads={'lm': head},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.skip('attention_probs_dropout_prob', 'hidden_dropout_prob')  # unused fields with BERT's names
  d = c['hidden_size']
  norm = LayerNorm(c.get('layer_norm_eps', 1e-5))
  dropout = c.get('hidden_dropout', 0.0)
  rope = c.rope(fraction=0.25, fields=('rotary_emb_base', 'rotary_pct'))
  attention = Attention(
    c['num_attention_heads'], relative=rope, bias='qkvo' if c.get('attention_bias', True) else '',
    dropout=c.get('attention_dropout', 0.0),
  )  # fmt: skip
  ffn = Mlp(c['intermediate_size'], c.act('hidden_act', 'gelu'))
  residual_layout = LAYOUTS[c.get('use_parallel_residual', True)]
  return Model(
    Tokens(c['vocab_size'], dropout=dropout),
    d,
    (
      Segment(
        (Block(attention, ffn, norm, residual_layout, dropout=dropout),), c['num_hidden_layers']
      ),
    ),
    heads={'lm': Lm(c.get('tie_word_embeddings', False))},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  a = block.mixer
  return {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'num_hidden_layers': depth(m),
    'num_attention_heads': a.heads,
    'intermediate_size': block.ffn.d_ff, 'rope_parameters': all_rope_parameters(a.relative),
    'max_position_embeddings': 2048,
    'use_parallel_residual': block.residual_layout == LAYOUTS[True],
    'attention_bias': bool(a.bias), 'hidden_act': name_of(block.ffn.act),
    'layer_norm_eps': block.norm.eps,
    'attention_dropout': a.dropout, 'hidden_dropout': block.dropout,
  }  # fmt: skip


def all_rope_parameters(rope: RoPE) -> dict[str, Any]:
  """Return `rope_parameters` with an explicit rotated fraction."""
  return {**rope_parameters(rope), 'partial_rotary_factor': rope.fraction}


MODELS = {
  'gpt-neox-20b': Entry(gpt_neox(44, 6144, 64, 50_432, GeluTanh()), 20_554_567_680, '20B', PAPER),
  'pythia-160m': Entry(gpt_neox(12, 768, 12, 50_304), 162_322_944, '160M', PYTHIA),
  'pythia-1.4b': Entry(gpt_neox(24, 2048, 16, 50_304), 1_414_647_808, '1.4B', PYTHIA),
  'pythia-12b': Entry(gpt_neox(36, 5120, 40, 50_688), 11_846_072_320, '12B', PYTHIA),
}
