"""Youtu-LLM (Tencent, 2025): DeepSeek-V3's latent attention with dense feed-forwards."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.mla import MLA
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.zoo import llama, minicpm3
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = 'Youtu-LLM, Tencent 2025'


def youtu(depth: int, d: int, heads: int, d_ff: int, vocab: int) -> Model:
  """Return a tied pre-norm decoder with latent attention, RMSNorm and SwiGLU.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.
    vocab: size of the vocabulary.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-6)
  block = Block(MLA(heads, 1536, 512, 128, 64, 128, RoPE(1.6e6, 'interleaved')), Glu(d_ff), norm)
  return Model(
    Tokens(vocab), d, (Segment((block,), depth),), norm=norm, init=Normal(depth_scaled=False)
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(num_key_value_heads=c['num_attention_heads'])
  c.skip('head_dim', 'qk_head_dim', 'embedding_initializer_range')
  layout = 'interleaved' if c.given('rope_interleave', True) else 'halves'
  attention = minicpm3.latent(c, layout, 1536, 512, 128, 64, c.get('v_head_dim', 128))
  norm = RMSNorm(c.get('rms_norm_eps', 1e-6))
  layers = [Block(attention, llama.glu(c, bias=False), norm)] * c['num_hidden_layers']
  return llama.decoder(c, layers, norm, True)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  layout = m.segments[0].pattern[0].mixer.relative.layout
  return {**minicpm3.sizes(m), 'rope_interleave': layout == 'interleaved'}


MODELS = {'youtu-llm-2b': Entry(youtu(32, 2048, 16, 6144, 128_256), 1_961_560_064, '1.96B', PAPER)}
