"""HyperCLOVA X SEED (NAVER, 2025): Granite's multipliers and sandwich norms."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual_layout.pre import Pre
from tfm.parts.residual_layout.sandwich import Sandwich
from tfm.parts.residual_scale.base import ResidualScale
from tfm.parts.residual_scale.fixed import Fixed
from tfm.zoo import granite, llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

CARD = 'HyperCLOVAX-SEED-Think-14B, model card, NAVER 2025'

#: Residual layout by `use_post_norm`.
LAYOUTS = {True: Sandwich(), False: Pre()}


def hyperclovax(depth: int, d: int, heads: int, kv_heads: int, d_ff: int, vocab: int) -> Model:
  """Return a decoder with a norm before and after each branch, RoPE and SwiGLU.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.
    vocab: size of the vocabulary.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  block = Block(
    Attention(heads, kv_heads, 128, RoPE(1e8), scale=0.0078125), Glu(d_ff), norm, Sandwich()
  )
  head, segment = Lm(tied=False, scale=0.125), Segment((block,), depth)
  return Model(
    Tokens(vocab, 10.0),
    d,
    (segment,),
    heads={'lm': head},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm, multiplier = RMSNorm(c.get('rms_norm_eps', 1e-6)), float(c.get('residual_multiplier', 1.0))
  scale = c.get('attention_multiplier')
  attention = llama.attention(c, scale=None if scale is None else float(scale))
  residual_layout = LAYOUTS[c.get('use_post_norm', True)]
  block = Block(
    attention,
    llama.glu(c),
    norm,
    residual_layout,
    residual_scale=ResidualScale() if multiplier == 1 else Fixed(multiplier),
  )
  embed = Tokens(scale=float(c.get('embedding_multiplier', 1.0)))
  scale = float(c.get('logits_scaling', 1.0))
  return llama.decoder(c, [block] * c['num_hidden_layers'], norm, embed=embed, scale=scale)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  return {
    **granite.write(m), 'attention_multiplier': block.mixer.scale,
    'use_post_norm': block.residual_layout == LAYOUTS[True],
    'logits_scaling': 1.0 if m.lm is None else m.lm.scale,
  }  # fmt: skip


MODELS = {
  'hyperclovax-seed-think-14b': Entry(
    hyperclovax(38, 6144, 48, 8, 14_336, 110_592), 14_748_112_896, '14.7B', CARD
  ),
}
