"""Gemma (2024): embeddings times sqrt(D), norms that store their scale less one, GeGLU, heads wider
than D / N.
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
from tfm.zoo.fields import ACTS, Fields, name_of

PAPER = 'Gemma: Open Models Based on Gemini Research and Technology, arXiv:2403.08295'


def gemma(depth: int, d: int, heads: int, kv_heads: int, d_ff: int) -> Model:
  """Pre-norm by root mean square, rotary positions, tied embeddings that are scaled on the way in."""
  norm = scaled(1e-6)
  block = Block(Attention(heads, kv_heads, 256, RoPE(1e4)), Glu(d_ff, GeluTanh()), norm)
  segment = Segment((block,), depth)
  return Model(
    Tokens(256_000, power=0.5), d, (segment,), norm=norm, init=Normal(depth_scaled=False)
  )


def scaled(eps: float) -> RMSNorm:
  """Gemma's norm."""
  return RMSNorm(eps, one_plus=True, scale_first=True)


def read(c: Fields) -> Model:
  """The spec of a published config."""
  c.only(use_bidirectional_attention=False)
  # The first releases say 'gelu' and mean this.
  act = c.choice('hidden_act', {**ACTS, 'gelu': GeluTanh()}, 'gelu_pytorch_tanh')
  c.skip('hidden_activation')
  norm = scaled(c.get('rms_norm_eps', 1e-6))
  ffn = Glu(c['intermediate_size'], act)
  layers = [Block(llama.attention(c, 16, 256), ffn, norm)] * c['num_hidden_layers']
  return llama.decoder(c, layers, norm, True, Tokens(power=0.5))


def write(m: Any) -> dict[str, Any]:
  """The published fields of a spec."""
  block = m.segments[0].pattern[0]
  return {
    **llama.sizes(m), 'hidden_act': name_of(block.ffn.act, 'gelu_pytorch_tanh'),
    'attention_bias': bool(block.mixer.bias),
  }  # fmt: skip


MODELS = {
  'gemma-2b': Entry(gemma(18, 2048, 8, 1, 16_384), 2_506_172_416, '2.5B', PAPER),
  'gemma-7b': Entry(gemma(28, 3072, 16, 16, 24_576), 8_537_680_896, '8.5B', PAPER),
}
