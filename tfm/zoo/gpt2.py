"""GPT-2, four sizes (2019)."""

from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields, name_of

PAPER = 'Language Models are Unsupervised Multitask Learners, OpenAI 2019'


#: Fields of a head that makes one vector of a row, of a class that is not read.
SUMMARY = (
  'summary_activation', 'summary_first_dropout', 'summary_proj_to_labels', 'summary_type', 'summary_use_proj',
)  # fmt: skip


def gpt2(depth: int, d: int, heads: int, kv_heads: int | None = None, vocab: int = 50_257, length: int = 1024) -> Model:
  """Pre-norm, learned positions, tanh GELU, biases everywhere, tied, residual weights started at .02 / sqrt(2 L)."""
  norm = LayerNorm(1e-5)
  attention = Attention(heads, kv_heads, bias='qkvo', dropout=0.1)
  block = Block(attention, Mlp(4 * d, GeluTanh()), norm, dropout=0.1)
  return Model(Tokens(vocab, dropout=0.1), d, (Segment((block,), depth),), Learned(length), norm)


def read(c: Fields, kv_heads: int | None = None) -> Model:
  """The spec of a published config, or of one like it with so many key heads."""
  d = c['n_embd']
  c.only(scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
  c.skip('n_ctx', *SUMMARY)
  norm = LayerNorm(c.get('layer_norm_epsilon', 1e-5))
  attention = Attention(c['n_head'], kv_heads, bias='qkvo', dropout=c.get('attn_pdrop', 0.1))
  ffn = Mlp(c.get('n_inner', 4 * d), c.act('activation_function', 'gelu_new'))
  block = Block(attention, ffn, norm, dropout=c.get('resid_pdrop', 0.1))
  return Model(
    Tokens(c['vocab_size'], dropout=c.get('embd_pdrop', 0.1)),
    d,
    (Segment((block,), c['n_layer']),),
    Learned(c.get('n_positions', 1024)),
    norm,
    heads={'lm': Lm(tied=c.get('tie_word_embeddings', True))},
  )


def write(m: Any) -> dict[str, Any]:
  """The published fields of a spec."""
  block = m.segments[0].pattern[0]
  return {
    'vocab_size': m.vocab, 'n_embd': m.d_model, 'n_layer': depth(m), 'n_head': block.mixer.heads,
    'n_inner': block.ffn.d_ff, 'n_positions': m.max_positions, 'activation_function': name_of(block.ffn.act),
    'layer_norm_epsilon': block.norm.eps, 'attn_pdrop': block.mixer.dropout, 'resid_pdrop': block.dropout,
    'embd_pdrop': m.embed.dropout,
  }  # fmt: skip


MODELS = {
  'gpt2': Entry(gpt2(12, 768, 12), 124_439_808, '117M', PAPER),
  'gpt2-medium': Entry(gpt2(24, 1024, 16), 354_823_168, '345M', PAPER),
  'gpt2-large': Entry(gpt2(36, 1280, 20), 774_030_080, '762M', PAPER),
  'gpt2-xl': Entry(gpt2(48, 1600, 25), 1_557_611_200, '1542M', PAPER),
}
