"""BioGPT (Luo et al., 2022): GPT-2's blocks with OPT's positions, for biomedical text."""

from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.gelu import Gelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of

PAPER = (
  'BioGPT: Generative Pre-trained Transformer for Biomedical Text Generation and Mining, '
  'arXiv:2210.10341'
)
#: transformers ignores the config's `layer_norm_eps`.
NORM = LayerNorm(1e-5)


def biogpt(depth: int, d: int, heads: int, d_ff: int, vocab: int, length: int) -> Model:
  """Return a pre-norm decoder with erf GELU, biases and a tied, scaled token table.

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
  block = Block(Attention(heads, bias='qkvo', dropout=0.1), Mlp(d_ff, Gelu()), NORM, dropout=0.1)
  embed, segment = Tokens(vocab, power=0.5, dropout=0.1), Segment((block,), depth)
  return Model(embed, d, (segment,), Learned(length, 2), NORM, init=Normal(depth_scaled=False))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(layerdrop=0.0, add_cross_attention=False)
  c.skip('layer_norm_eps', 'is_decoder')
  dropout = c.get('hidden_dropout_prob', 0.1)
  attention = Attention(
    c['num_attention_heads'], bias='qkvo', dropout=c.get('attention_probs_dropout_prob', 0.1)
  )
  ffn = Mlp(
    c['intermediate_size'], c.act('hidden_act', 'gelu'), dropout=c.get('activation_dropout', 0.0)
  )
  power = 0.5 if c.get('scale_embedding', True) else 0.0
  return Model(
    Tokens(c['vocab_size'], power=power, dropout=dropout),
    c['hidden_size'],
    (Segment((Block(attention, ffn, NORM, dropout=dropout),), c['num_hidden_layers']),),
    Learned(c.get('max_position_embeddings', 1024), 2),
    NORM,
    heads={'lm': Lm(c.get('tie_word_embeddings', True))},
    init=Normal(depth_scaled=False),
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  return {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'num_hidden_layers': depth(m),
    'num_attention_heads': block.mixer.heads, 'intermediate_size': block.ffn.d_ff,
    'hidden_act': name_of(block.ffn.act, 'gelu'), 'hidden_dropout_prob': block.dropout,
    'attention_probs_dropout_prob': block.mixer.dropout, 'activation_dropout': block.ffn.dropout,
    'max_position_embeddings': m.max_positions, 'scale_embedding': m.embed.power == 0.5,
  }  # fmt: skip


MODELS = {
  'biogpt': Entry(biogpt(24, 1024, 16, 4096, 42_384, 1024), 346_763_264, '347M', PAPER),
  'biogpt-large': Entry(biogpt(48, 1600, 25, 6400, 57_717, 2048), 1_571_188_800, '1.5B', PAPER),
}
