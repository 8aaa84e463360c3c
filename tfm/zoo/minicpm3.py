"""MiniCPM3 (OpenBMB, 2024): latent attention with scaled embeddings, branches and logits."""

import math
from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.mla import MLA
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual_scale.fixed import Fixed
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of, rope_parameters

PAPER = 'MiniCPM: Unveiling the Potential of Small Language Models, arXiv:2404.06395'


def minicpm3(depth: int, d: int, heads: int, d_ff: int, vocab: int) -> Model:
  """Return a tied pre-norm decoder with latent attention, RMSNorm and SwiGLU.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.
    vocab: size of the vocabulary.

  Returns:
    The spec of the model.

  Note:
    The published config scales RoPE by LongRoPE factors, which this spec leaves out.
  """
  norm = RMSNorm(1e-5)
  attention = MLA(heads, 768, 256, 64, 32, d // heads, RoPE(1e4))
  block = Block(attention, Glu(d_ff), norm, residual_scale=Fixed(1.4 / math.sqrt(depth)))
  head, segment = Lm(scale=256 / d), Segment((block,), depth)
  return Model(
    Tokens(vocab, 12.0),
    d,
    (segment,),
    heads={'lm': head},
    norm=norm,
    init=Normal(0.1, depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  heads, d, n = c['num_attention_heads'], c['hidden_size'], c['num_hidden_layers']
  c.only(num_key_value_heads=heads, pretraining_tp=1)
  c.skip('head_dim', 'qk_head_dim')
  attention = latent(c, 'halves', 768, 256, 64, 32, c.get('v_head_dim', d // heads))
  norm = RMSNorm(c.get('rms_norm_eps', 1e-5))
  multiplier = c.given('scale_depth', 1.4)
  residual_scale = Fixed(1.0 if multiplier is None else multiplier / math.sqrt(n))
  base = c.given('dim_model_base', 256)
  embed, scale = Tokens(scale=float(c.get('scale_emb', 12))), (d if base is None else base) / d
  block = Block(attention, llama.glu(c), norm, residual_scale=residual_scale)
  return llama.decoder(c, [block] * n, norm, True, embed, scale=scale)


def latent(
  c: Fields, layout: Any, q_rank: int, kv_rank: int, nope_dim: int, rope_dim: int, v_dim: int
) -> MLA:
  """Return the latent attention of a config.

  Args:
    c: fields of the config.
    layout: layout of the rotary position embedding.
    q_rank: rank of the query latent if the config has none.
    kv_rank: rank of the key/value latent if the config has none.
    nope_dim: width of a head without positions if the config has none.
    rope_dim: width of a head's rotated part if the config has none.
    v_dim: width of a head's values.

  Returns:
    The attention mixer.
  """
  rank = c.given('q_lora_rank', q_rank)
  bias = ''
  if c.get('attention_bias'):
    bias = 'co' if rank is None else 'qco'
  return MLA(
    c['num_attention_heads'], rank, c.get('kv_lora_rank', kv_rank),
    c.get('qk_nope_head_dim', nope_dim),
    c.get('qk_rope_head_dim', rope_dim), v_dim, c.rope(layout=layout), norm=RMSNorm(1e-6),
    bias=bias,
    dropout=c.get('attention_dropout', 0.0),
  )  # fmt: skip


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block, n = m.segments[0].pattern[0], depth(m)
  scale = 1.0 if m.lm is None else m.lm.scale
  return {
    **sizes(m), 'mlp_bias': block.ffn.bias,
    'scale_depth': _depth_scale(block.residual_scale.factor, n),
    'scale_emb': m.embed.scale, 'dim_model_base': round(scale * m.d_model),
  }  # fmt: skip


def sizes(m: FamilyModel) -> dict[str, Any]:
  """Return the config fields of a spec with latent attention and dense feed-forwards."""
  block, n = m.segments[0].pattern[0], depth(m)
  a = block.mixer
  return {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'num_hidden_layers': n,
    'num_attention_heads': a.heads,
    'num_key_value_heads': a.heads, 'q_lora_rank': a.q_rank, 'kv_lora_rank': a.kv_rank,
    'qk_nope_head_dim': a.nope_dim, 'qk_rope_head_dim': a.rope_dim, 'v_head_dim': a.v_dim,
    'rope_parameters': rope_parameters(a.relative), 'rms_norm_eps': m.norm.eps,
    'attention_bias': bool(a.bias),
    'max_position_embeddings': getattr(a.relative.scaling, 'length', 32_768),
    'attention_dropout': a.dropout,
    'intermediate_size': block.ffn.d_ff, 'hidden_act': name_of(block.ffn.act),
    'tie_word_embeddings': m.lm is None or m.lm.tied,
  }  # fmt: skip


def _depth_scale(factor: float, n: int) -> float:
  """Return the shortest number that gives `factor` after division by sqrt(n).

  Rounding matters: 1.4 / sqrt(62) * sqrt(62) is not exactly 1.4.
  """
  number = factor * math.sqrt(n)
  rounded = (round(number, digits) for digits in range(1, 17))
  return next((x for x in rounded if x / math.sqrt(n) == factor), number)


MODELS = {'minicpm3-4b': Entry(minicpm3(62, 2560, 40, 6400, 73_448), 4_073_875_968, '4.07B', PAPER)}
