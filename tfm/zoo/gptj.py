"""GPT-J (EleutherAI, 2021) and CodeGen (2022): parallel branches behind one norm."""

from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual_layout.parallel import Parallel
from tfm.zoo import gpt2
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of

PAPER = 'GPT-J-6B: A 6 Billion Parameter Autoregressive Language Model, EleutherAI 2021'
CODEGEN = 'CodeGen: An Open Large Language Model for Code, arXiv:2203.13474'


def gptj(depth: int, d: int, heads: int, rotary: int, vocab: int = 50_400) -> Model:
  """Return a parallel-branch decoder with interleaved RoPE, and biases in feed-forward and head.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    rotary: number of rotated dimensions of a head.
    vocab: size of the vocabulary.

  Returns:
    The spec of the model.
  """
  norm, rope = LayerNorm(1e-5), RoPE(layout='interleaved', fraction=rotary * heads / d)
  block = Block(Attention(heads, relative=rope), Mlp(4 * d, GeluTanh()), norm, Parallel())
  head = Lm(tied=False, bias=True)
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
  c.only(scale_attn_weights=True, rotary=True)
  c.skip('n_positions', 'n_ctx', *gpt2.SUMMARY)
  d, heads, norm = c['n_embd'], c['n_head'], LayerNorm(c.get('layer_norm_epsilon', 1e-5))
  rope = RoPE(layout='interleaved', fraction=c.get('rotary_dim', 64) * heads / d)
  attention = Attention(heads, relative=rope, dropout=c.get('attn_pdrop', 0.0))
  ffn = Mlp(c.get('n_inner', 4 * d), c.act('activation_function', 'gelu_new'))
  block = Block(attention, ffn, norm, Parallel(), dropout=c.get('resid_pdrop', 0.0))
  return Model(
    Tokens(c['vocab_size'], dropout=c.get('embd_pdrop', 0.0)),
    d,
    (Segment((block,), c['n_layer']),),
    heads={'lm': Lm(c.get('tie_word_embeddings', False), bias=True)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  a = block.mixer
  return {
    'vocab_size': m.vocab, 'n_embd': m.d_model, 'n_layer': depth(m), 'n_head': a.heads,
    'n_inner': block.ffn.d_ff,
    'rotary_dim': a.relative.rotated(a.size(m.d_model)), 'n_positions': 2048,
    'attn_pdrop': a.dropout,
    'activation_function': name_of(block.ffn.act), 'layer_norm_epsilon': block.norm.eps,
    'resid_pdrop': block.dropout, 'embd_pdrop': m.embed.dropout,
  }  # fmt: skip


MODELS = {
  'gptj-6b': Entry(gptj(28, 4096, 16, 64), 6_050_882_784, '6B', PAPER),
  'codegen-350m': Entry(gptj(20, 1024, 16, 32, 51_200), 356_712_448, '350M', CODEGEN),
  'codegen-16b': Entry(gptj(34, 6144, 24, 64, 51_200), 16_032_155_648, '16.1B', CODEGEN),
}
