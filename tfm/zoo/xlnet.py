"""XLNet (Yang et al., 2019): Transformer-XL positions, trained on permutations."""

from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.act.gelu import Gelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.xl import XL
from tfm.parts.residual_layout.post import Post
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of

PAPER = 'XLNet: Generalized Autoregressive Pretraining for Language Understanding, arXiv:1906.08237'


def xlnet(depth: int, d: int, heads: int) -> Model:
  """Return a post-norm model with relative sinusoids, erf GELU and unnormalised embeddings.

  `token_type_ids` add a term for equal or different segments. `apply` returns the content stream.
  With `order_ids` and `target_positions` it returns the query stream, which `tasks.PermutationLM`
  trains. The equivalent `perm_mask` in transformers is order_ids[j] >= order_ids[i].

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec of the model.

  Note:
    There is no memory of previous segments (`mems`).
  """
  attention = Attention(
    heads, head_dim=d // heads, relative=XL(types=True), mask=Mask(), dropout=0.1
  )
  return _model(32_000, d, depth, attention, Mlp(4 * d, Gelu()), LayerNorm(1e-12), 0.1)


def _model(
  vocab: int, d: int, layers: int, mixer: Attention, ffn: Mlp, norm: LayerNorm, dropout: float
) -> Model:
  block = Block(mixer, ffn, norm, Post(), dropout=dropout)
  return Model(
    Tokens(vocab, dropout=dropout, query=True),
    d,
    (Segment((block,), layers),),
    heads={'lm': Lm(bias=True)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(untie_r=True, attn_type='bi', bi_data=False, clamp_len=-1, same_length=False)
  c.skip('mem_len', 'reuse_len', 'use_mems_eval', 'use_mems_train', 'start_n_top', 'end_n_top')
  c.skip('summary_type', 'summary_use_proj', 'summary_activation', 'summary_last_dropout')
  d, heads, dropout = c['d_model'], c['n_head'], c.get('dropout', 0.1)
  size = c.get('d_head', d // heads)
  mixer = Attention(heads, head_dim=size, relative=XL(types=True), mask=Mask(), dropout=dropout)
  ffn = Mlp(c['d_inner'], c.act('ff_activation', 'gelu'), dropout=dropout)
  norm = LayerNorm(c.get('layer_norm_eps', 1e-12))
  spec = _model(c['vocab_size'], d, c['n_layer'], mixer, ffn, norm, dropout)
  return spec.with_heads(lm=Lm(c.get('tie_word_embeddings', True), bias=True))


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  return {
    'vocab_size': m.vocab, 'd_model': m.d_model, 'n_layer': depth(m), 'n_head': block.mixer.heads,
    'd_head': block.mixer.size(m.d_model), 'd_inner': block.ffn.d_ff,
    'ff_activation': name_of(block.ffn.act),
    'layer_norm_eps': block.norm.eps, 'dropout': block.dropout,
  }  # fmt: skip


MODELS = {
  'xlnet-base': Entry(xlnet(12, 768, 12), 116_750_336, '117M', PAPER),
  'xlnet-large': Entry(xlnet(24, 1024, 16), 360_300_800, '360M', PAPER),
}
