"""Falcon-H1 (TII, 2025): attention and Mamba-2 in parallel in every layer, with multipliers."""

import dataclasses
import math
from typing import Any

from tfm.core import errors
from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.mamba2 import Mamba2
from tfm.parts.mixer.sum import Sum
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.zoo import llama
from tfm.zoo.bamba import mamba2, mamba_fields
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of, rope_parameters

PAPER = 'Falcon-H1: A Family of Hybrid-Head Language Models, arXiv:2507.22448'


def falcon_h1(
  depth: int, d: int, attention: Attention, recurrent: Mamba2, d_ff: int, vocab: int
) -> Model:
  """Return a pre-norm hybrid with RMSNorm and SwiGLU.

  The multipliers are 1 here; released configs set them.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    attention: mixer of the layers.
    recurrent: mixer of the recurrent layers.
    d_ff: hidden width of the feed-forward.
    vocab: size of the vocabulary.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  segments = (Segment((Block(Sum(attention, recurrent), Glu(d_ff), norm),), depth),)
  return Model(
    Tokens(vocab),
    d,
    segments,
    heads={'lm': Lm(tied=False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(mamba_use_mlp=True)
  c.skip('mlp_expansion_factor')
  norm, bias = RMSNorm(c.get('rms_norm_eps', 1e-5)), c.get('mamba_proj_bias', False)
  if c.get('projectors_bias', False) != bias:
    raise errors.UserError(
      f'{c.where}: projectors_bias is {not bias} and mamba_proj_bias {bias}. Expected equal '
      'values: both projections of Mamba-2 have a bias, or neither.'
    )
  multiplier = c.get('ssm_in_multiplier', 1.0)
  scales = tuple(float(multiplier * scale) for scale in c.get('ssm_multipliers', [1.0] * 5))
  normed, first = c.get('mamba_rms_norm', False), not c.get('mamba_norm_before_gate', True)
  if bias and multiplier != 1:
    raise errors.UserError(
      f'{c.where}: ssm_in_multiplier is {multiplier}, and mamba_proj_bias is true. '
      'Expected 1, or no bias.'
    )
  inner_norm = norm if normed else None
  recurrent = mamba2(c, scales=scales, norm=inner_norm, gate_first=first or not normed)
  attention, keys = llama.attention(c, 8), c.get('key_multiplier', 1.0)
  if keys != 1:
    attention = dataclasses.replace(
      attention, scale=float(attention.size(c['hidden_size']) ** -0.5 * keys)
    )
  mixer = Sum(
    attention, recurrent, float(c.get('attention_in_multiplier', 1.0)),
    float(c.get('attention_out_multiplier', 1.0)), float(c.get('ssm_out_multiplier', 1.0)),
  )  # fmt: skip
  gate, out = c.get('mlp_multipliers', [1.0, 1.0])
  ffn = llama.glu(c, gate_scale=float(gate), out_scale=float(out))
  embed = Tokens(scale=float(c.get('embedding_multiplier', 1.0)))
  multiplier = float(c.get('lm_head_multiplier', 1.0))
  return llama.decoder(
    c, [Block(mixer, ffn, norm)] * c['num_hidden_layers'], norm, embed=embed, scale=multiplier
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  mixer, ffn = block.mixer, block.ffn
  a, r = mixer.left, mixer.right
  heads, kv_heads, head_dim = a.sizes(m.d_model)
  mamba_only = Model(m.embed, m.d_model, (Segment((Block(r, ffn, block.norm),)),))
  key_multiplier = 1.0 if a.scale is None else _multiplier(a.scale, head_dim)
  return {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'num_hidden_layers': depth(m),
    'num_attention_heads': heads,
    'num_key_value_heads': kv_heads, 'head_dim': head_dim,
    'rope_parameters': rope_parameters(a.relative),
    'max_position_embeddings': getattr(a.relative.scaling, 'length', 131_072),
    'rms_norm_eps': m.norm.eps,
    'attention_dropout': a.dropout, 'attention_bias': bool(a.bias), 'mlp_bias': ffn.bias,
    'intermediate_size': ffn.d_ff, 'hidden_act': name_of(ffn.act),
    'tie_word_embeddings': m.lm is None or m.lm.tied,
    **mamba_fields(mamba_only), 'mamba_d_ssm': r.heads * r.head_dim, 'mamba_expand': 2,
    'projectors_bias': r.bias,
    'mamba_rms_norm': r.norm is not None, 'mamba_norm_before_gate': not r.gate_first,
    'ssm_in_multiplier': 1.0,
    'ssm_multipliers': list(r.scales), 'ssm_out_multiplier': mixer.right_out,
    'attention_in_multiplier': mixer.left_in, 'attention_out_multiplier': mixer.left_out,
    'key_multiplier': key_multiplier,
    'mlp_multipliers': [ffn.gate_scale, ffn.out_scale], 'embedding_multiplier': m.embed.scale,
    'lm_head_multiplier': 1.0 if m.lm is None else m.lm.scale,
  }  # fmt: skip


def _multiplier(scale: float, head_dim: int) -> float:
  """Return the multiplier of the keys for a score factor `scale`, bit-exact if possible."""
  near = scale * head_dim**0.5
  candidates = round(near, 12), near, math.nextafter(near, 0), math.nextafter(near, math.inf)
  return next(
    (multiplier for multiplier in candidates if head_dim**-0.5 * multiplier == scale), near
  )


def _recurrent(heads: int, d_state: int) -> Mamba2:
  return Mamba2(heads, 64, d_state, 1, norm=None)


_HALF = falcon_h1(36, 1024, Attention(8, 2, 64, RoPE(1e11)), _recurrent(24, 128), 2048, 32_784)

MODELS = {'falcon-h1-0.5b': Entry(_HALF, 521_411_104, '0.52B', PAPER)}
