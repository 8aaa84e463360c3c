"""Phi-3 and Phi-4 (Microsoft, 2024): Llama's block with fused projections."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.layers import causal_mask, window_of

PAPER = 'Phi-3 Technical Report, arXiv:2404.14219'
PAPER_4 = 'Phi-4 Technical Report, arXiv:2412.08905'


def phi3(
  depth: int,
  d: int,
  heads: int,
  kv_heads: int,
  d_ff: int,
  vocab: int,
  base: float = 1e4,
  window: int | None = None,
) -> Model:
  """Return a pre-norm decoder with RMSNorm, RoPE, SwiGLU and no biases.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.
    vocab: size of the vocabulary.
    base: base of the rotary position embedding.
    window: number of tokens that a token attends to; None is no limit.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  attention = Attention(heads, kv_heads, d // heads, RoPE(base), causal_mask(window))
  segment = Segment((Block(attention, Glu(d_ff), norm),), depth)
  return Model(
    Tokens(vocab),
    d,
    (segment,),
    heads={'lm': Lm(tied=False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm = RMSNorm(c.get('rms_norm_eps', 1e-5))
  rope = c.rope(older={'su': 'longrope', 'yarn': 'longrope'}, original=4096)
  attention = llama.attention(c, relative=rope, mask=causal_mask(c.given('sliding_window')))
  block = Block(attention, llama.glu(c), norm, dropout=c.get('resid_pdrop', 0.0))
  return llama.decoder(
    c, [block] * c['num_hidden_layers'], norm, embed=Tokens(dropout=c.get('embd_pdrop', 0.0))
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  fields, block = llama.sizes(m), m.segments[0].pattern[0]
  original = fields['rope_parameters'].get('original_max_position_embeddings', 4096)
  return {
    **fields, **llama.padding(m, 32_000), 'sliding_window': window_of(m),
    'original_max_position_embeddings': original,
    'resid_pdrop': block.dropout, 'embd_pdrop': m.embed.dropout,
  }  # fmt: skip


MODELS = {
  'phi3-mini': Entry(
    phi3(32, 3072, 32, 32, 8192, 32_064, window=2047), 3_821_079_552, '3.8B', PAPER
  ),
  'phi3-medium': Entry(
    phi3(40, 5120, 40, 10, 17_920, 32_064, window=2047), 13_960_238_080, '14B', PAPER
  ),
  'phi4': Entry(phi3(40, 5120, 40, 10, 17_920, 100_352, 2.5e5), 14_659_507_200, '14.7B', PAPER_4),
}
