"""OLMo 2 (AI2, 2024): norms after the branches, and query/key norms over all heads."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual_layout.after import After
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = '2 OLMo 2 Furious, arXiv:2501.00656'


def olmo2(depth: int, d: int, heads: int, kv_heads: int, d_ff: int) -> Model:
  """Return a decoder with RMSNorm after each branch, RoPE, SwiGLU and no biases.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-6, scale_first=True)
  attention = Attention(heads, kv_heads, d // heads, RoPE(5e5), qk_norm=norm, qk_norm_over='all')
  segment = Segment((Block(attention, Glu(d_ff), norm, After()),), depth)
  return Model(
    Tokens(100_352),
    d,
    (segment,),
    heads={'lm': Lm(tied=False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm = RMSNorm(c.get('rms_norm_eps', 1e-5), scale_first=True)
  attention = llama.attention(c, qk_norm=norm, qk_norm_over='all')
  return llama.decoder(
    c, [Block(attention, llama.glu(c), norm, After())] * c['num_hidden_layers'], norm
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return {**llama.sizes(m), 'attention_bias': bool(m.segments[0].pattern[0].mixer.bias)}


MODELS = {
  'olmo2-1b': Entry(olmo2(16, 2048, 16, 16, 8192), 1_484_916_736, '1.5B', PAPER),
  'olmo2-7b': Entry(olmo2(32, 4096, 32, 32, 11_008), 7_298_617_344, '7.3B', PAPER),
  'olmo2-13b': Entry(olmo2(40, 5120, 40, 40, 13_824), 13_716_198_400, '13.7B', PAPER),
  'olmo2-32b': Entry(olmo2(64, 5120, 40, 8, 27_648), 32_234_279_936, '32.2B', PAPER),
}
