"""Qwen3 (2025): Llama's block with query/key norms."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.zoo import llama, qwen2
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = 'Qwen3 Technical Report, arXiv:2505.09388'


def qwen3(depth: int, d: int, heads: int, d_ff: int, tied: bool = False) -> Model:
  """Return a pre-norm decoder with RMSNorm, RoPE, SwiGLU, 8 key/value heads and query/key norms.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.
    tied: whether the head shares the token table.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-6)
  block = Block(Attention(heads, 8, 128, RoPE(1e6), qk_norm=norm), Glu(d_ff), norm)
  segment = Segment((block,), depth)
  return Model(
    Tokens(151_936),
    d,
    (segment,),
    heads={'lm': Lm(tied=tied)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm, ffn = RMSNorm(c.get('rms_norm_eps', 1e-6)), llama.glu(c)
  attention = lambda mask: llama.attention(c, 32, 128, qk_norm=norm, mask=mask)
  return llama.decoder(
    c, [Block(attention(mask), ffn, norm) for mask in qwen2.layer_masks(c)], norm
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return {**qwen2.write(m), 'attention_bias': bool(m.segments[0].pattern[0].mixer.bias)}


MODELS = {
  'qwen3-0.6b': Entry(qwen3(28, 1024, 16, 3072, True), 596_049_920, '0.6B', PAPER),
  'qwen3-8b': Entry(qwen3(36, 4096, 32, 12_288), 8_190_735_360, '8.2B', PAPER),
  'qwen3-32b': Entry(qwen3(64, 5120, 64, 25_600), 32_762_123_264, '32.8B', PAPER),
}
