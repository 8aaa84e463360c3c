"""DINOv2 (Oquab et al., 2023): self-supervised vision transformers, also with registers."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.absolute.base import Absolute
from tfm.parts.act.gelu import Gelu
from tfm.parts.act.sigmoid import Swish
from tfm.parts.embed.patches import Patches
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.classify import Classify
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.residual_scale.layer_scale import LayerScale
from tfm.zoo import vit
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of

PAPER = 'DINOv2: Learning Robust Visual Features without Supervision, arXiv:2304.07193'
REGISTERS = 'Vision Transformers Need Registers, arXiv:2309.16588'
#: The head of the body, which returns the class token.
POOLER = Classify(0)


def dinov2(depth: int, d: int, heads: int, registers: int = 0, gated: bool = False) -> Model:
  """Return a ViT with LayerScale and a mask token, for images of 518 pixels.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    registers: number of register tokens.
    gated: whether the feed-forward is SwiGLU.

  Returns:
    The spec of the model.
  """
  ffn = Glu(_gated(4 * d), bias=True) if gated else Mlp(4 * d, Gelu())
  norm = LayerNorm(1e-6)
  block = Block(
    Attention(heads, mask=Mask(), bias='qkvo'), ffn, norm, residual_scale=LayerScale(1.0)
  )
  return Model(
    Patches(
      14,
      518,
      registers=registers,
      mask_token=True,
      resize='antialiased' if registers else 'bicubic',
    ),
    d,
    (Segment((block,), depth),),
    Absolute(),
    norm,
    heads={'classify': POOLER},
    init=vit.INIT,
  )


def _gated(d_ff: int) -> int:
  """Return the width of a SwiGLU with the parameters of an MLP, rounded up to a multiple of 8."""
  return (int(d_ff * 2 / 3) + 7) // 8 * 8


def read(c: Fields, registers: int = 0) -> Model:
  """Return the spec of a published `config.json`, with its classifier.

  The classifier's input is the class token and the mean of the patches.

  Args:
    c: fields of the config.
    registers: number of register tokens if the config has none; 0 for the family without them.

  Returns:
    The spec of the model.
  """
  # Used by backbones for dense prediction only.
  c.skip('apply_layernorm', 'reshape_hidden_states', 'out_features', 'out_indices', 'stage_names')
  c.only(drop_path_rate=0.0)
  d = c['hidden_size']
  d_ff, act = int(c.get('mlp_ratio', 4) * d), c.act('hidden_act', 'gelu')
  ffn = Glu(_gated(d_ff), bias=True) if c.get('use_swiglu_ffn', False) else Mlp(d_ff, act)
  norm, dropout = LayerNorm(c.get('layer_norm_eps', 1e-6)), c.get('hidden_dropout_prob', 0.0)
  bias = 'qkvo' if c.get('qkv_bias', True) else 'o'
  attention_dropout = c.get('attention_probs_dropout_prob', 0.0)
  attention = Attention(c['num_attention_heads'], mask=Mask(), bias=bias, dropout=attention_dropout)
  block = Block(attention, ffn, norm, residual_scale=LayerScale(c.get('layerscale_value', 1.0)))
  embed = vit.patches(c, 16 if registers else 14, dropout=dropout, mask_token=True)
  if registers:
    c.only(interpolate_antialias=True, interpolate_offset=0.0)
    embed = dataclasses.replace(
      embed, registers=c.get('num_register_tokens', registers), resize='antialiased'
    )
  else:
    embed = dataclasses.replace(embed, mask_token=c.get('use_mask_token', True))
  return Model(
    embed,
    d,
    (Segment((block,), c['num_hidden_layers']),),
    Absolute(),
    norm,
    heads={'classify': Classify(c.labels, 'first_patches')},
    init=vit.INIT,
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  gated = isinstance(block.ffn, Glu)
  width = _gated if gated else int
  ratios = (r for r in range(1, 17) if width(r * m.d_model) == block.ffn.d_ff)
  tokens = (
    {'num_register_tokens': m.embed.registers}
    if m.embed.registers
    else {'use_mask_token': m.embed.mask_token}
  )
  return {
    **vit.write_patches(m.embed), **tokens, 'hidden_size': m.d_model, 'num_hidden_layers': depth(m),
    'num_attention_heads': block.mixer.heads, 'mlp_ratio': next(ratios), 'use_swiglu_ffn': gated,
    'hidden_act': name_of(Gelu() if gated and block.ffn.act == Swish() else block.ffn.act, 'gelu'),
    'layer_norm_eps': block.norm.eps, 'layerscale_value': block.residual_scale.start,
    'qkv_bias': 'q' in block.mixer.bias,
    'hidden_dropout_prob': m.embed.dropout, 'attention_probs_dropout_prob': block.mixer.dropout,
  }  # fmt: skip


MODELS = {
  'dinov2-small': Entry(dinov2(12, 384, 6), 22_056_576, '21M', PAPER),
  'dinov2-base': Entry(dinov2(12, 768, 12), 86_580_480, '86M', PAPER),
  'dinov2-large': Entry(dinov2(24, 1024, 16), 304_368_640, '300M', PAPER),
  'dinov2-giant': Entry(dinov2(40, 1536, 24, gated=True), 1_136_480_768, '1.1B', PAPER),
  'dinov2-small-registers': Entry(dinov2(12, 384, 6, 4), 22_058_112, '21M', REGISTERS),
  'dinov2-base-registers': Entry(dinov2(12, 768, 12, 4), 86_583_552, '86M', REGISTERS),
}
