"""CWM (Meta, 2025): Llama's block as a code world model, three local layers to one global."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.scaling.llama3 import Llama3
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.layers import GLOBAL, LOCAL, causal_mask, choose, masks, segments, types_of, window_of

PAPER = (
  'CWM: An Open-Weights LLM for Research on Code Generation with World Models, arXiv:2510.02387'
)
_ROPE = RoPE(1e6, scaling=Llama3(16.0))


def cwm(depth: int, d: int, heads: int, d_ff: int) -> Model:
  """Return a pre-norm decoder with RMSNorm, SwiGLU and 8 key/value heads of width 128.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  full = Block(Attention(heads, 8, 128, _ROPE), Glu(d_ff), norm)
  local = dataclasses.replace(full, mixer=Attention(heads, 8, 128, _ROPE, causal_mask(8192)))
  layers = choose((i % 4 for i in range(depth)), local, full)
  head = Lm(tied=False)
  return Model(
    Tokens(128_256),
    d,
    segments(layers),
    heads={'lm': head},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(pretraining_tp=1, attention_bias=False)
  norm, ffn = RMSNorm(c.get('rms_norm_eps', 1e-5)), llama.glu(c)
  rope = c.rope(1e6) if 'rope_parameters' in c or 'rope_scaling' in c else _ROPE
  types = choose((i % 4 for i in range(c['num_hidden_layers'])), LOCAL, GLOBAL)
  layer_masks = masks(c, types, c.get('sliding_window', 8192))
  layers = [
    Block(llama.attention(c, 8, 128, mask=mask, relative=rope), ffn, norm) for mask in layer_masks
  ]
  return llama.decoder(c, layers, norm)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  fields = llama.write(m)
  del fields['attention_bias']
  return {**fields, 'sliding_window': window_of(m) or 8192, 'layer_types': types_of(m)}


MODELS = {'cwm-32b': Entry(cwm(64, 6144, 48, 21_504), 32_581_097_472, '32B', PAPER)}
