"""CTRL (Keskar et al., 2019): a decoder that starts with a control code."""

from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.absolute.sinusoidal import Sinusoidal
from tfm.parts.act.relu import Relu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = (
  'CTRL: A Conditional Transformer Language Model for Controllable Generation, arXiv:1909.05858'
)


def ctrl(depth: int, d: int, heads: int, d_ff: int, vocab: int, length: int) -> Model:
  """Return a pre-norm decoder with sinusoidal positions, ReLU, biases and a tied head with bias.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.
    vocab: size of the vocabulary.
    length: number of positions.

  Returns:
    The spec of the model.
  """
  norm = LayerNorm(1e-6)
  block = Block(Attention(heads, bias='qkvo'), Mlp(d_ff, Relu()), norm, dropout=0.1)
  embed, segment = Tokens(vocab, power=0.5, dropout=0.1), Segment((block,), depth)
  absolute, head = Sinusoidal('halves', max_len=length), Lm(bias=True)
  return Model(
    embed, d, (segment,), absolute, norm, heads={'lm': head}, init=Normal(depth_scaled=False)
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.skip('n_ctx', 'attn_pdrop')
  # The norms of the layers have a fixed epsilon.
  block = Block(
    Attention(c['n_head'], bias='qkvo'),
    Mlp(c['dff'], Relu()),
    LayerNorm(1e-6),
    dropout=c.get('resid_pdrop', 0.1),
  )
  return Model(
    Tokens(c['vocab_size'], power=0.5, dropout=c.get('embd_pdrop', 0.1)),
    c['n_embd'],
    (Segment((block,), c['n_layer']),),
    Sinusoidal('halves', max_len=c.get('n_positions', 256)),
    LayerNorm(c.get('layer_norm_epsilon', 1e-6)),
    heads={'lm': Lm(c.get('tie_word_embeddings', True), bias=True)},
    init=Normal(depth_scaled=False),
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  return {
    'vocab_size': m.vocab, 'n_embd': m.d_model, 'n_layer': depth(m), 'n_head': block.mixer.heads,
    'dff': block.ffn.d_ff, 'n_positions': m.max_positions, 'layer_norm_epsilon': m.norm.eps,
    'resid_pdrop': block.dropout, 'embd_pdrop': m.embed.dropout,
  }  # fmt: skip


MODELS = {'ctrl': Entry(ctrl(48, 1280, 16, 8192, 246_534, 256), 1_637_964_550, '1.63B', PAPER)}
