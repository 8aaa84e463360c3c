"""Qwen3's mixtures (2025): 128 narrow experts, eight of which see a token; queries and keys normalised."""

from tfm.model.spec import Block, Head, Model, Segment
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.router.top_k import TopK
from tfm.zoo.entry import Entry

PAPER = 'Qwen3 Technical Report, arXiv:2505.09388'


def qwen3_moe(depth: int, d: int, heads: int, d_ff: int, head_dim: int = 128, experts: int = 128, k: int = 8) -> Model:
  """Pre-norm by root mean square, rotary positions, 4 heads of keys, SwiGLU experts with weights that sum to 1."""
  norm = RMSNorm(1e-6)
  attention = Attention(heads, 4, head_dim, RoPE(1e6), qk_norm=norm)
  segment = Segment((Block(attention, Moe(experts, TopK(k=k), Glu(d_ff)), norm),), depth)
  return Model(151_936, d, (segment,), norm=norm, head=Head(tied=False), init=Normal(depth_scaled=False))


MODELS = {
  'qwen3-30b-a3b': Entry(qwen3_moe(48, 2048, 32, 768), 30_532_122_624, '30.5B', PAPER),
  'qwen3-235b-a22b': Entry(qwen3_moe(94, 4096, 64, 1536), 235_093_634_560, '235B', PAPER),
}
