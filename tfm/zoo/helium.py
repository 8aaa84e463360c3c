"""Helium 1 (Kyutai, 2025): Llama's block with interleaved RoPE."""

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

CARD = 'Helium-1 preview, model card, Kyutai 2025'


def helium(depth: int, d: int, heads: int, d_ff: int, vocab: int) -> Model:
  """Return a pre-norm decoder with RMSNorm, interleaved RoPE, SwiGLU and no biases.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.
    vocab: size of the vocabulary.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-8, scale_first=True)
  block = Block(Attention(heads, heads, 128, RoPE(1e5, 'interleaved')), Glu(d_ff), norm)
  segment = Segment((block,), depth)
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
  norm = RMSNorm(c.get('rms_norm_eps', 1e-8), scale_first=True)
  bias = 'qkv' if c.get('attention_bias', False) else ''
  attention = llama.attention(c, 20, 128, relative=c.rope(1e5, 'interleaved'), bias=bias)
  return llama.decoder(c, [Block(attention, llama.glu(c), norm)] * c['num_hidden_layers'], norm)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return llama.write(m)


MODELS = {
  'helium-1-preview-2b': Entry(helium(24, 2560, 20, 7040, 48_000), 2_172_643_840, '2.2B', CARD)
}
