"""GPT-2 (Radford et al., 2019): a pre-norm decoder with learned positions; and GPT-SW3."""

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
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of
from tfm.zoo.layers import layers_of, segments

PAPER = 'Language Models are Unsupervised Multitask Learners, OpenAI 2019'
PAPER_SW3 = 'GPT-SW3: An Autoregressive Language Model for the Nordic Languages, arXiv:2305.12987'


#: Fields of a sequence summary head, a class that tfm lacks.
SUMMARY = (
  'summary_activation', 'summary_first_dropout', 'summary_proj_to_labels', 'summary_type',
  'summary_use_proj',
)  # fmt: skip


def gpt2(
  depth: int,
  d: int,
  heads: int,
  kv_heads: int | None = None,
  vocab: int = 50_257,
  length: int = 1024,
) -> Model:
  """Return a tied pre-norm decoder with learned positions, tanh GELU and biases.

  Residual projections start with standard deviation 0.02 / sqrt(2 depth).

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads; None is the number of heads.
    vocab: size of the vocabulary.
    length: number of positions.

  Returns:
    The spec of the model.
  """
  norm = LayerNorm(1e-5)
  attention = Attention(heads, kv_heads, bias='qkvo', dropout=0.1)
  block = Block(attention, Mlp(4 * d, GeluTanh()), norm, dropout=0.1)
  return Model(Tokens(vocab, dropout=0.1), d, (Segment((block,), depth),), Learned(length), norm)


def read(c: Fields, kv_heads: int | None = None) -> Model:
  """Return the spec of a published `config.json`.

  Args:
    c: fields of the config.
    kv_heads: number of key/value heads, for families with GPT-2's fields.

  Returns:
    The spec of the model.
  """
  d = c['n_embd']
  c.only(add_cross_attention=False)
  c.skip('n_ctx', *SUMMARY)
  norm, dropout = LayerNorm(c.get('layer_norm_epsilon', 1e-5)), c.get('attn_pdrop', 0.1)
  ffn = Mlp(c.get('n_inner', 4 * d), c.act('activation_function', 'gelu_new'))
  layers = []
  for scale in _scales(c):
    attention = Attention(c['n_head'], kv_heads, bias='qkvo', dropout=dropout, scale=scale)
    layers.append(Block(attention, ffn, norm, dropout=c.get('resid_pdrop', 0.1)))
  return Model(
    Tokens(c['vocab_size'], dropout=c.get('embd_pdrop', 0.1)),
    d,
    segments(layers),
    Learned(c.get('n_positions', 1024)),
    norm,
    heads={'lm': Lm(tied=c.get('tie_word_embeddings', True))},
  )


def _scales(c: Fields) -> list[float | None]:
  """Return the score factor of every layer; None is 1 / sqrt(head width)."""
  usual = (c['n_embd'] // c['n_head']) ** -0.5
  first = usual if c.get('scale_attn_weights', True) else 1.0
  by_layer = c.get('scale_attn_by_inverse_layer_idx', False)
  scales: list[float | None] = []
  for i in range(c['n_layer']):
    scale = first / (i + 1) if by_layer else first
    scales.append(None if scale == usual else scale)
  return scales


def _scaling(m: FamilyModel) -> dict[str, bool]:
  """Return the config fields of the score factors, none if all are standard."""
  scales = [b.mixer.scale for b in layers_of(m)]
  fields = {
    'scale_attn_weights': scales[0] is None, 'scale_attn_by_inverse_layer_idx': len({*scales}) > 1,
  }  # fmt: skip
  return {} if set(scales) == {None} else fields


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  return {
    'vocab_size': m.vocab, 'n_embd': m.d_model, 'n_layer': depth(m), 'n_head': block.mixer.heads,
    'n_inner': block.ffn.d_ff, 'n_positions': m.max_positions,
    'activation_function': name_of(block.ffn.act),
    'layer_norm_epsilon': block.norm.eps, 'attn_pdrop': block.mixer.dropout,
    'resid_pdrop': block.dropout,
    'embd_pdrop': m.embed.dropout, **_scaling(m),
  }  # fmt: skip


MODELS = {
  'gpt2': Entry(gpt2(12, 768, 12), 124_439_808, '117M', PAPER),
  'gpt2-medium': Entry(gpt2(24, 1024, 16), 354_823_168, '345M', PAPER),
  'gpt2-large': Entry(gpt2(36, 1280, 20), 774_030_080, '762M', PAPER),
  'gpt2-xl': Entry(gpt2(48, 1600, 25), 1_557_611_200, '1542M', PAPER),
  'gpt-sw3-356m': Entry(
    gpt2(24, 1024, 16, vocab=64_000, length=2048), 369_944_576, '356M', PAPER_SW3
  ),
  'gpt-sw3-1.3b': Entry(
    gpt2(24, 2048, 32, vocab=64_000, length=2048), 1_343_868_928, '1.3B', PAPER_SW3
  ),
  'gpt-sw3-6.7b': Entry(
    gpt2(32, 4096, 32, vocab=64_000, length=2048), 6_714_695_680, '6.7B', PAPER_SW3
  ),
}
