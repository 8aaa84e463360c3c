"""XLM (Lample and Conneau, 2019) and FlauBERT (Le et al., 2019): cross-lingual BERTs."""

import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.gelu import Gelu
from tfm.parts.act.relu import Relu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.residual_layout.post import Post
from tfm.parts.residual_layout.pre import Pre
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = 'Cross-lingual Language Model Pretraining, arXiv:1901.07291'
PAPER_FLAUBERT = 'FlauBERT: Unsupervised Language Model Pre-training for French, arXiv:1912.05372'

#: Field -> its name in older configs.
_OLDER = {
  'vocab_size': 'n_words',
  'emb_dim': 'hidden_size',
  'n_layers': 'num_hidden_layers',
  'n_heads': 'num_heads',
}
#: Training fields of the first release, without effect.
_TRAINING = """
  accumulate_gradients ae_steps amp bptt bt_steps clip_grad_norm clm_steps encoder_only epoch_size
  fp16 group_by_size lg_sampling_factor lgs max_batch_size max_vocab min_count mlm_steps pc_steps
  same_enc_dec sample_alpha share_inout_emb tokens_per_batch use_apex word_blank word_dropout
  word_keep word_mask word_mask_keep_rand word_pred word_rand word_shuffle
""".split()  # noqa: SIM905


def xlm(
  layers: int, d: int, heads: int, vocab: int, pre: bool = False, eps: float = 1e-12
) -> Model:
  """Return a BERT encoder with normalised embeddings and a bias on the logits.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.
    vocab: size of the vocabulary.
    pre: whether norms precede the branches and no norm follows the last layer (FlauBERT large).
    eps: epsilon of the norms.

  Returns:
    The spec of the model.
  """
  attention = Attention(heads, mask=Mask(), bias='qkvo', dropout=0.1)
  embed = Tokens(vocab, norm=LayerNorm(eps), dropout=0.1)
  block = Block(attention, Mlp(4 * d, Gelu()), LayerNorm(eps), Post(), dropout=0.1)
  return _model(embed, d, layers, block, Learned(512), Lm(bias=True), pre)


def _model(
  embed: Tokens, d: int, layers: int, block: Block, absolute: Learned, head: Lm, pre: bool
) -> Model:
  block = dataclasses.replace(block, residual_layout=Pre()) if pre else block
  norm = None if pre else block.norm
  init = Normal(depth_scaled=False)
  return Model(
    embed, d, (Segment((block,), layers),), absolute, norm, heads={'lm': head}, init=init
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with its language-model head.

  Language embeddings, causal masks and adaptive softmax are errors.
  """
  count, languages = c.get('n_langs', 1), c.get('use_lang_emb', True)
  if count > 1 and languages:
    raise errors.UserError(
      f'{c.where}: use_lang_emb is true, and n_langs is {count}. Expected use_lang_emb=false or '
      'n_langs=1; language embeddings are not supported.'
    )
  c.only(causal=False, asm=False, is_encoder=True)
  c.skip(
    'sinusoidal_embeddings',
    'lang_id',
    'lang2id',
    'id2lang',
    'mask_token_id',
    'layerdrop',
    'embed_init_std',
  )
  c.skip('bos_index', 'eos_index', 'pad_index', 'unk_index', 'mask_index')
  c.skip('langs', 'start_n_top', 'end_n_top', *_TRAINING)
  c.skip(
    'summary_type',
    'summary_use_proj',
    'summary_activation',
    'summary_proj_to_labels',
    'summary_first_dropout',
  )
  c.skip(*_OLDER.values())
  sizes = {}
  for new, old in _OLDER.items():
    sizes[new] = c.get(new, c.get(old)) if old in c else c[new]
  norm = LayerNorm(c.get('layer_norm_eps', 1e-12))
  dropout = c.get('dropout', 0.1)
  d = sizes['emb_dim']
  attention_dropout = c.get('attention_dropout', 0.1)
  attention = Attention(sizes['n_heads'], mask=Mask(), bias='qkvo', dropout=attention_dropout)
  act = Gelu() if c.get('gelu_activation', True) else Relu()
  block = Block(attention, Mlp(4 * d, act), norm, Post(), dropout=dropout)
  positions = Learned(c.get('max_position_embeddings', 512))
  embed = Tokens(sizes['vocab_size'], norm=norm, dropout=dropout)
  head = Lm(c.get('tie_word_embeddings', True), bias=True)
  return _model(embed, d, sizes['n_layers'], block, positions, head, c.get('pre_norm', False))


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  pre = {'pre_norm': True} if block.residual_layout.final_norm else {}
  return {
    'vocab_size': m.vocab, 'emb_dim': m.d_model, 'n_layers': depth(m), 'n_heads': block.mixer.heads,
    'gelu_activation': block.ffn.act == Gelu(), 'max_position_embeddings': m.max_positions,
    'layer_norm_eps': block.norm.eps, 'dropout': block.dropout,
    'attention_dropout': block.mixer.dropout,
    'tie_word_embeddings': m.lm is None or m.lm.tied, 'n_langs': 1, 'use_lang_emb': False, **pre,
  }  # fmt: skip


MODELS = {
  'xlm-mlm-en-2048': Entry(xlm(12, 2048, 16, 30_145), 667_119_041, '667M', PAPER),
  'xlm-mlm-17-1280': Entry(xlm(16, 1280, 16, 200_000), 571_696_960, '570M', PAPER),
  'xlm-mlm-100-1280': Entry(xlm(16, 1280, 16, 200_000), 571_696_960, '570M', PAPER),
  'flaubert-base-cased': Entry(xlm(12, 768, 12, 68_729), 138_301_817, '138M', PAPER_FLAUBERT),
  'flaubert-large-cased': Entry(
    xlm(24, 1024, 16, 68_729, True, 1e-6), 373_282_937, '373M', PAPER_FLAUBERT
  ),
}
