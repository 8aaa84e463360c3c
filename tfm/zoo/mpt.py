"""MPT (MosaicML, 2023): a pre-norm decoder with ALiBi and without biases."""

from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.act.gelu import Gelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.alibi import ALiBi
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER_7B = (
  'Introducing MPT-7B: A New Standard for Open-Source, Commercially Usable LLMs, MosaicML 2023'
)
PAPER_30B = 'MPT-30B: Raising the bar for open-source foundation models, MosaicML 2023'


def mpt(depth: int, d: int, heads: int, vocab: int = 50_432) -> Model:
  """Return a tied pre-norm decoder with ALiBi, erf GELU and no biases.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    vocab: size of the vocabulary.

  Returns:
    The spec of the model.
  """
  norm = LayerNorm(1e-5, bias=False)
  block = Block(Attention(heads, relative=ALiBi()), Mlp(4 * d, Gelu(), bias=False), norm)
  return Model(
    Tokens(vocab), d, (Segment((block,), depth),), norm=norm, init=Normal(depth_scaled=False)
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`.

  Note:
    transformers assumes `alibi_bias_max=8`. The published code and tfm use the config's value
    (StoryWriter has 16).
  """
  c.only(
    expansion_ratio=4,
    no_bias=True,
    logit_scale=None,
    embedding_fraction=1.0,
    resid_pdrop=0.0,
    emb_pdrop=0.0,
  )
  # With ALiBi there is no position table, even if `learned_pos_emb` is true.
  c.skip(
    'max_seq_len',
    'learned_pos_emb',
    'init_device',
    'init_config',
    'norm_type',
    'tokenizer_name',
    'verbose',
  )
  a = c.part('attn_config')
  a.only(
    attn_type='multihead_attention',
    prefix_lm=False,
    qk_ln=False,
    attn_uses_sequence_id=False,
    alibi=True,
  )
  a.skip('attn_impl')
  d = c['d_model']
  norm = LayerNorm(c.get('layer_norm_epsilon', 1e-5), bias=False)
  dropout = a.get('attn_pdrop', 0.0)
  attention = Attention(
    c['n_heads'], relative=ALiBi(float(a.get('alibi_bias_max', 8))), clip=a.get('clip_qkv') or None,
    scale=a.get('softmax_scale'), dropout=float(dropout),
  )  # fmt: skip
  block = Block(attention, Mlp(4 * d, Gelu(), bias=False), norm, dropout=float(dropout))
  return Model(
    Tokens(c['vocab_size']),
    d,
    (Segment((block,), c['n_layers']),),
    heads={'lm': Lm(c.get('tie_word_embeddings', True))},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  a = block.mixer
  attention = {
    'alibi': True, 'alibi_bias_max': int(a.relative.max_bias), 'clip_qkv': a.clip,
    'softmax_scale': a.scale,
    'attn_pdrop': a.dropout or 0,
  }  # fmt: skip
  return {
    'vocab_size': m.vocab, 'd_model': m.d_model, 'n_layers': depth(m), 'n_heads': a.heads,
    'max_seq_len': 2048,
    'layer_norm_epsilon': block.norm.eps, 'attn_config': attention,
  }  # fmt: skip


MODELS = {
  'mpt-7b': Entry(mpt(32, 4096, 32), 6_649_286_656, '6.7B', PAPER_7B),
  'mpt-30b': Entry(mpt(48, 7168, 64), 29_957_200_896, '30B', PAPER_30B),
}
