"""Gemma (Google, 2024): Llama's block with GeGLU, scaled embeddings and wide heads.

The norms store their scale minus one. Heads have width 256.
"""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import ACTS, Fields, name_of

PAPER = 'Gemma: Open Models Based on Gemini Research and Technology, arXiv:2403.08295'


def gemma(depth: int, d: int, heads: int, kv_heads: int, d_ff: int) -> Model:
  """Return a tied pre-norm decoder with RMSNorm, RoPE, GeGLU and embeddings times sqrt(d).

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  norm = scaled(1e-6)
  block = Block(Attention(heads, kv_heads, 256, RoPE(1e4)), Glu(d_ff, GeluTanh()), norm)
  segment = Segment((block,), depth)
  return Model(
    Tokens(256_000, power=0.5), d, (segment,), norm=norm, init=Normal(depth_scaled=False)
  )


def scaled(eps: float) -> RMSNorm:
  """Return Gemma's RMSNorm, which stores its scale minus one."""
  return RMSNorm(eps, one_plus=True, scale_first=True)


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(use_bidirectional_attention=False)
  # In the first releases, 'gelu' means tanh GELU.
  act = c.choice('hidden_act', {**ACTS, 'gelu': GeluTanh()}, 'gelu_pytorch_tanh')
  c.skip('hidden_activation')
  norm = scaled(c.get('rms_norm_eps', 1e-6))
  ffn = Glu(c['intermediate_size'], act)
  layers = [Block(llama.attention(c, 16, 256), ffn, norm)] * c['num_hidden_layers']
  return llama.decoder(c, layers, norm, True, Tokens(power=0.5))


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  return {
    **llama.sizes(m), 'hidden_act': name_of(block.ffn.act, 'gelu_pytorch_tanh'),
    'attention_bias': bool(block.mixer.bias),
  }  # fmt: skip


MODELS = {
  'gemma-2b': Entry(gemma(18, 2048, 8, 1, 16_384), 2_506_172_416, '2.5B', PAPER),
  'gemma-7b': Entry(gemma(28, 3072, 16, 16, 24_576), 8_537_680_896, '8.5B', PAPER),
}
