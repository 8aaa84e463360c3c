"""GLM-4-0414 (Zhipu AI, 2025): GLM-4 with a norm before and after each branch."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual_layout.base import ResidualLayout
from tfm.parts.residual_layout.sandwich import Sandwich
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

CARD = 'GLM-4-0414, model card, Zhipu AI 2025'


def glm4(depth: int, d: int, heads: int, kv_heads: int, d_ff: int, bias: bool) -> Model:
  """Return a decoder with sandwich RMSNorm, SwiGLU and interleaved RoPE on half of each head.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.
    bias: whether queries, keys and values have biases.

  Returns:
    The spec of the model.
  """
  norm, rope = RMSNorm(1e-5), RoPE(1e4, 'interleaved', 0.5)
  attention = Attention(heads, kv_heads, 128, rope, bias='qkv' if bias else '')
  segment = Segment((Block(attention, Glu(d_ff), norm, Sandwich()),), depth)
  return Model(
    Tokens(151_552),
    d,
    (segment,),
    heads={'lm': Lm(tied=False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields, residual_layout: ResidualLayout = Sandwich()) -> Model:
  """Return the spec of a published `config.json`.

  Args:
    c: fields of the config.
    residual_layout: where the norms are; GLM-4 passes pre-norm.

  Returns:
    The spec of the model.
  """
  norm, rope = RMSNorm(c.get('rms_norm_eps', 1.5625e-7)), c.rope(layout='interleaved', fraction=0.5)
  attention = llama.attention(
    c, 2, 128, relative=rope, bias='qkv' if c.get('attention_bias', True) else ''
  )
  return llama.decoder(
    c, [Block(attention, llama.glu(c), norm, residual_layout)] * c['num_hidden_layers'], norm
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  a = m.segments[0].pattern[0].mixer
  fields = llama.sizes(m)
  # Without the field, transformers rotates half of each head.
  fields['rope_parameters'] |= {'partial_rotary_factor': a.relative.fraction}
  return {**fields, **llama.padding(m, 151_329), 'attention_bias': bool(a.bias)}


MODELS = {
  'glm4-9b': Entry(glm4(40, 4096, 32, 2, 13_696, True), 9_400_279_040, '9.4B', CARD),
  'glm4-32b': Entry(glm4(61, 6144, 48, 2, 23_040, False), 32_566_081_536, '32.6B', CARD),
}
