"""Mixtral (Mistral AI, 2024): Mistral's block with 2 of 8 experts per token."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.router.top_k import TopK
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of
from tfm.zoo.layers import causal_mask, window_of

PAPER = 'Mixtral of Experts, arXiv:2401.04088'
POST = 'Cheaper, Better, Faster, Stronger (Mixtral 8x22B v0.3), Mistral AI 2024'


def mixtral(
  depth: int, d: int, heads: int, kv_heads: int, d_ff: int, vocab: int, experts: int = 8, k: int = 2
) -> Model:
  """Return a pre-norm decoder with RoPE, grouped-query attention and SwiGLU experts.

  The weights of the selected experts sum to 1.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of an expert.
    vocab: size of the vocabulary.
    experts: number of experts.
    k: number of experts per token.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  ffn = Moe(experts, TopK(k=k), Glu(d_ff))
  block = Block(Attention(heads, kv_heads, d // heads, RoPE(1e6)), ffn, norm)
  return Model(
    Tokens(vocab),
    d,
    (Segment((block,), depth),),
    heads={'lm': Lm(tied=False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm = RMSNorm(c.get('rms_norm_eps', 1e-5))
  attention = llama.attention(
    c, 8, mask=causal_mask(c.get('sliding_window')), relative=c.rope(1e6, partial=False)
  )
  router = TopK(c.get('router_aux_loss_coef', 0.001), 0.0, c.get('num_experts_per_tok', 2))
  n = c.get('num_local_experts', c.get('num_experts', 8))
  return llama.decoder(
    c, [Block(attention, Moe(n, router, llama.glu(c)), norm)] * c['num_hidden_layers'], norm
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  moe = m.segments[0].pattern[0].ffn
  return {
    **llama.sizes(m), 'sliding_window': window_of(m), 'num_local_experts': moe.experts,
    'num_experts_per_tok': moe.router.k, 'router_aux_loss_coef': moe.router.balance,
    'intermediate_size': moe.expert.d_ff, 'hidden_act': name_of(moe.expert.act),
  }  # fmt: skip


MODELS = {
  'mixtral-8x7b': Entry(mixtral(32, 4096, 32, 8, 14_336, 32_000), 46_702_792_704, '46.7B', PAPER),
  'mixtral-8x22b': Entry(mixtral(56, 6144, 48, 8, 16_384, 32_768), 140_630_071_296, '141B', POST),
}
