"""MiniMax-Text-01 (MiniMax, 2025): a hybrid of lightning and softmax attention with experts.

Every eighth layer has softmax attention.
"""

from typing import Any

from tfm.core import errors
from tfm.model.spec import Block, Model
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.lightning import Lightning
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual_layout.normed import Normed
from tfm.parts.router.top_k import TopK
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of
from tfm.zoo.layers import GLOBAL, as_attention, causal_mask, choose, layers_of, segments, window_of

PAPER = 'MiniMax-01: Scaling Foundation Models with Lightning Attention, arXiv:2501.08313'

LINEAR = 'linear_attention'


def minimax(
  depth: int, d: int, heads: int, kv_heads: int, d_ff: int, experts: int, alpha: float
) -> Model:
  """Return a decoder with softmax attention in every eighth layer, lightning attention elsewhere.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads of softmax attention.
    d_ff: hidden width of an expert.
    experts: number of experts.
    alpha: factor of the normalised residual stream.

  Returns:
    The spec of the model.
  """
  norm, factors = RMSNorm(1e-5), (alpha, 1.0)
  residual_layout = Normed(factors, factors)
  attention, linear = (
    Attention(heads, kv_heads, 128, RoPE(1e7, fraction=0.5)),
    Lightning(heads, 128),
  )
  ffn = Moe(experts, TopK(k=2), Glu(d_ff))
  mixers = choose(((i + 1) % 8 for i in range(depth)), linear, attention)
  layers = [Block(mixer, ffn, norm, residual_layout) for mixer in mixers]
  head = Lm(tied=False)
  return Model(
    Tokens(200_064),
    d,
    segments(layers),
    heads={'lm': head},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published config."""
  c.skip('block_size')  # chunk size of transformers
  norm, n = RMSNorm(c.get('rms_norm_eps', 1e-5)), c['num_hidden_layers']
  attention = llama.attention(
    c,
    8,
    relative=c.rope(1e6, partial=False),
    mask=causal_mask(c.get('sliding_window')),
    bias='',
    scale=None,
  )
  linear = Lightning(attention.heads, attention.head_dim, c.act('hidden_act', 'silu'))
  ffn = Moe(
    c.get('num_local_experts', c.get('num_experts', 8)),
    TopK(c.get('router_aux_loss_coef', 0.001), 0.0, c.get('num_experts_per_tok', 2)),
    Glu(c['intermediate_size'], c.act('hidden_act', 'silu')),
  )
  types = c.get('layer_types', choose((i % 2 for i in range(n)), LINEAR, GLOBAL))
  if odd := sorted({*types} - {LINEAR, GLOBAL}):
    raise errors.UserError(
      f'{c.where}: layer_types: {errors.unknown("value", odd[0], (LINEAR, GLOBAL))}'
    )
  if len(types) != n:
    raise errors.UserError(
      f'{c.where}: layer_types has {len(types)} layers. Expected num_hidden_layers ({n}).'
    )
  full, light, feed = (_factors(c, name) for name in ('full_attn', 'linear_attn', 'mlp'))
  blocks = {
    GLOBAL: Block(attention, ffn, norm, Normed(full, feed)),
    LINEAR: Block(linear, ffn, norm, Normed(light, feed)),
  }  # fmt: skip
  return llama.decoder(c, [blocks[t] for t in types], norm)


def _factors(c: Fields, name: str) -> tuple[float, float]:
  return float(c.get(f'{name}_alpha_factor', 1)), float(c.get(f'{name}_beta_factor', 1))


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the published fields of a spec."""
  blocks = layers_of(m)
  types = choose((hasattr(b.mixer, 'sizes') for b in blocks), GLOBAL, LINEAR)
  moe, fields = blocks[0].ffn, llama.sizes(as_attention(m))
  factors = {}
  for name, kind in (('full_attn', GLOBAL), ('linear_attn', LINEAR)):
    if kind in types:
      factors[name] = blocks[types.index(kind)].residual_layout.mixer
  factors['mlp'] = blocks[0].residual_layout.ffn
  for name, (alpha, beta) in factors.items():
    fields |= {f'{name}_alpha_factor': alpha, f'{name}_beta_factor': beta}
  return {
    **fields, 'layer_types': types, 'sliding_window': window_of(as_attention(m)),
    'num_local_experts': moe.experts, 'num_experts_per_tok': moe.router.k,
    'router_aux_loss_coef': moe.router.balance,
    'intermediate_size': moe.expert.d_ff, 'hidden_act': name_of(moe.expert.act),
  }  # fmt: skip


_ALPHA = 3.5565588200778455

MODELS = {
  'minimax-text-01': Entry(
    minimax(80, 6144, 64, 8, 9216, 32, _ALPHA), 456_089_655_296, '456B', PAPER
  )
}
