"""dots.llm1 (2025): query/key norms and DeepSeek-V3's experts after one dense layer."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.base import FFN
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.router.grouped import Grouped
from tfm.zoo import glm4_moe, llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.layers import GLOBAL, LOCAL, choose, masks, types_of, window_of

PAPER = 'dots.llm1 Technical Report, arXiv:2506.05767'


def dots1(
  depth: int, d: int, heads: int, d_ff: int, experts: int, k: int, width: int, shared: int
) -> Model:
  """Return a pre-norm decoder with RMSNorm and RoPE: one dense SwiGLU layer, then experts.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the dense feed-forward.
    experts: number of experts.
    k: number of experts per token.
    width: hidden width of an expert.
    shared: number of shared experts.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  attention = Attention(heads, heads, 128, RoPE(1e7), qk_norm=norm)
  moe = Moe(
    experts, Grouped(0.0, 0.0, k, scale=2.5, groups=1, keep=1), Glu(width), Glu(shared * width)
  )
  segments = (
    Segment((Block(attention, Glu(d_ff), norm),)),
    Segment((Block(attention, moe, norm),), depth - 1),
  )
  return Model(
    Tokens(152_064),
    d,
    segments,
    heads={'lm': Lm(tied=False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm, n = RMSNorm(c.get('rms_norm_eps', 1e-6)), c['num_hidden_layers']
  window, full = c.given('sliding_window', 4096), c.get('max_window_layers', 62)
  local = [window is not None and i >= full for i in range(n)]
  layer_masks = masks(c, choose(local, LOCAL, GLOBAL), window)
  # transformers requires these two sizes too.
  moe = glm4_moe.mixture(c, c['n_routed_experts'], c['num_experts_per_tok'], 1408, 0, False)
  dense, first = llama.glu(c, bias=False), c.get('first_k_dense_replace', 0)
  ffns: list[FFN] = choose((i < first for i in range(n)), dense, moe)
  pairs = zip(layer_masks, ffns, strict=True)
  layers = [
    Block(llama.attention(c, 32, qk_norm=norm, mask=mask), ffn, norm) for mask, ffn in pairs
  ]
  return llama.decoder(c, layers, norm)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  bias = bool(m.segments[0].pattern[0].mixer.bias)
  return {
    **glm4_moe.mixed(m),
    'attention_bias': bias,
    'sliding_window': window_of(m),
    'layer_types': types_of(m),
  }


#: The numbers of parameters include the router biases.
MODELS = {
  'dots.llm1': Entry(dots1(62, 4096, 32, 10_944, 128, 6, 1408, 2), 142_774_381_696, '143B', PAPER)
}
