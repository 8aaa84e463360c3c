"""GPT (Radford et al., 2018): a post-norm decoder with learned positions."""

from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.act.relu import Relu
from tfm.parts.act.sigmoid import Swish
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.residual_layout.post import Post
from tfm.zoo import gpt2
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = 'Improving Language Understanding by Generative Pre-Training, OpenAI 2018'

#: Activations of the field `afn`; its 'gelu' is tanh GELU.
ACTS = {'gelu': GeluTanh(), 'relu': Relu(), 'silu': Swish(), 'swish': Swish()}


def gpt1(depth: int, d: int, heads: int) -> Model:
  """Return a tied post-norm decoder with learned positions, tanh GELU and biases.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec of the model.
  """
  norm = LayerNorm(1e-5)
  block = Block(
    Attention(heads, bias='qkvo', dropout=0.1), Mlp(4 * d, GeluTanh()), norm, Post(), dropout=0.1
  )
  return Model(
    Tokens(40_478, dropout=0.1),
    d,
    (Segment((block,), depth),),
    Learned(512),
    norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.skip('n_ctx', 'n_special', 'predict_special_tokens', *gpt2.SUMMARY)
  d, norm = c['n_embd'], LayerNorm(c.get('layer_norm_epsilon', 1e-5))
  attention = Attention(c['n_head'], bias='qkvo', dropout=c.get('attn_pdrop', 0.1))
  block = Block(
    attention,
    Mlp(4 * d, c.choice('afn', ACTS, 'gelu')),
    norm,
    Post(),
    dropout=c.get('resid_pdrop', 0.1),
  )
  return Model(
    Tokens(c['vocab_size'], dropout=c.get('embd_pdrop', 0.1)),
    d,
    (Segment((block,), c['n_layer']),),
    Learned(c.get('n_positions', 512)),
    norm,
    heads={'lm': Lm(c.get('tie_word_embeddings', True))},
    init=Normal(depth_scaled=False),
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  return {
    'vocab_size': m.vocab, 'n_embd': m.d_model, 'n_layer': depth(m), 'n_head': block.mixer.heads,
    'n_positions': m.max_positions,
    'afn': next(name for name, act in ACTS.items() if act == block.ffn.act),
    'layer_norm_epsilon': block.norm.eps, 'attn_pdrop': block.mixer.dropout,
    'resid_pdrop': block.dropout,
    'embd_pdrop': m.embed.dropout,
  }  # fmt: skip


MODELS = {'gpt': Entry(gpt1(12, 768, 12), 116_534_784, '117M', PAPER)}
