"""Mistral (2023): Llama's block; the first release attends to 4096 tokens."""

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

PAPER = 'Mistral 7B, arXiv:2310.06825'
CARD = 'Mistral-7B-v0.3, model card, Mistral AI 2024'
POST = 'Mistral NeMo, Mistral AI 2024'
POST_SMALL = 'Mistral Small 3, Mistral AI 2025'
POST_SMALL_3_1 = 'Mistral Small 3.1, Mistral AI 2025'


def mistral(
  depth: int,
  d: int,
  heads: int,
  d_ff: int,
  vocab: int,
  base: float,
  window: int | None = None,
  head_dim: int = 128,
) -> Model:
  """Return a pre-norm decoder with RMSNorm, RoPE, SwiGLU, 8 key/value heads and no biases.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.
    vocab: size of the vocabulary.
    base: base of the rotary position embedding.
    window: number of tokens that a token attends to; None is no limit.
    head_dim: width of a head.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  segment = Segment(
    (Block(Attention(heads, 8, head_dim, RoPE(base), causal_mask(window)), Glu(d_ff), norm),), depth
  )
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
  norm = RMSNorm(c.get('rms_norm_eps', 1e-6))
  attention = llama.attention(c, 8, mask=causal_mask(c.given('sliding_window', 4096)))
  return llama.decoder(c, [Block(attention, llama.glu(c), norm)] * c['num_hidden_layers'], norm)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return {**llama.sizes(m), 'sliding_window': window_of(m)}


MODELS = {
  'mistral-7b-v0.1': Entry(
    mistral(32, 4096, 32, 14_336, 32_000, 1e4, 4096), 7_241_732_096, '7.24B', PAPER
  ),
  'mistral-7b-v0.3': Entry(
    mistral(32, 4096, 32, 14_336, 32_768, 1e6), 7_248_023_552, '7.25B', CARD
  ),
  'mistral-nemo-12b': Entry(
    mistral(40, 5120, 32, 14_336, 131_072, 1e6), 12_247_782_400, '12.2B', POST
  ),
  'mistral-small-3-24b': Entry(
    mistral(40, 5120, 32, 32_768, 131_072, 1e8), 23_572_403_200, '23.6B', POST_SMALL
  ),
  'mistral-small-3.1-24b': Entry(
    mistral(40, 5120, 32, 32_768, 131_072, 1e9), 23_572_403_200, '23.6B', POST_SMALL_3_1
  ),
}
