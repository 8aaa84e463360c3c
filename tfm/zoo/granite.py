"""Granite 3 (IBM, 2024): Llama's block with four multipliers.

They scale the embeddings, the attention scores, the residual branches and the logits.
"""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual_scale.base import ResidualScale
from tfm.parts.residual_scale.fixed import Fixed
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = 'Granite 3.0 Language Models, IBM 2024'


def granite(
  depth: int, d: int, heads: int, d_ff: int, scale: float, logits: float, base: float, vocab: int
) -> Model:
  """Return a tied pre-norm decoder with RMSNorm, RoPE, SwiGLU and 8 key/value heads.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.
    scale: factor of the attention scores.
    logits: divisor of the logits.
    base: base of the rotary position embedding.
    vocab: size of the vocabulary.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  block = Block(
    Attention(heads, 8, d // heads, RoPE(base), scale=scale),
    Glu(d_ff),
    norm,
    residual_scale=Fixed(0.22),
  )
  return Model(
    Tokens(vocab, 12.0),
    d,
    (Segment((block,), depth),),
    heads={'lm': Lm(scale=1 / logits)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm, multiplier = RMSNorm(c.get('rms_norm_eps', 1e-6)), c.get('residual_multiplier', 1.0)
  attention = llama.attention(c, scale=float(c.get('attention_multiplier', 1.0)))
  block = Block(
    attention,
    llama.glu(c),
    norm,
    residual_scale=ResidualScale() if multiplier == 1 else Fixed(float(multiplier)),
  )
  embed = Tokens(scale=float(c.get('embedding_multiplier', 1.0)))
  scale = 1 / c.get('logits_scaling', 1.0)
  return llama.decoder(c, [block] * c['num_hidden_layers'], norm, embed=embed, scale=scale)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return {**llama.write(m), **multipliers(m)}


def multipliers(m: FamilyModel) -> dict[str, Any]:
  """Return the config fields of a spec's four multipliers."""
  block = m.segments[0].pattern[0]
  return {
    'embedding_multiplier': m.embed.scale,
    'residual_multiplier': getattr(block.residual_scale, 'factor', 1.0),
    'attention_multiplier': block.mixer.scale or block.mixer.size(m.d_model) ** -0.5,
    # Rounded, because 1 / (1 / 49) is not exactly 49.
    'logits_scaling': 1.0 if m.lm is None else round(1 / m.lm.scale, 9),
  }  # fmt: skip


MODELS = {
  'granite3-2b': Entry(
    granite(40, 2048, 32, 8192, 0.015625, 8.0, 1e4, 49_155), 2_533_531_648, '2.5B', PAPER
  ),
  'granite3-8b': Entry(
    granite(40, 4096, 32, 12_800, 0.0078125, 16.0, 1e4, 49_155), 8_170_848_256, '8.2B', PAPER
  ),
}
