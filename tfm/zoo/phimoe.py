"""Phi-3.5-MoE (Microsoft, 2024): LayerNorm, and 2 of 16 experts selected by SparseMixer."""

from typing import Any

from tfm.core import errors
from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.scaling.longrope import LongRoPE
from tfm.parts.router.sparse_mixer import SparseMixer
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of
from tfm.zoo.layers import causal_mask, window_of
from tfm.zoo.rope import rope_fields, rope_from

PAPER = 'Phi-3 Technical Report, arXiv:2404.14219'


def phimoe(depth: int, d: int, heads: int, kv_heads: int, d_ff: int, experts: int) -> Model:
  """Return a pre-norm decoder with RoPE, grouped-query attention, and biases in attention and head.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of an expert.
    experts: number of experts.

  Returns:
    The spec of the model.
  """
  norm = LayerNorm(1e-5)
  moe = Moe(experts, SparseMixer(0.0, 0.0), Glu(d_ff))
  block = Block(Attention(heads, kv_heads, d // heads, RoPE(1e4), bias='qkvo'), moe, norm)
  head = Lm(tied=False, bias=True)
  segments = (Segment((block,), depth),)
  return Model(
    Tokens(32_064), d, segments, heads={'lm': head}, norm=norm, init=Normal(depth_scaled=False)
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm = LayerNorm(c.get('rms_norm_eps', 1e-5))
  router = SparseMixer(
    c.get('router_aux_loss_coef', 0.001), 0.0, c.get('router_jitter_noise', 0.01)
  )
  c.only(num_experts_per_tok=2)
  c.skip('input_jitter_noise', 'hidden_dropout')  # training only
  attention = llama.attention(c, 8, mask=causal_mask(c.get('sliding_window')), relative=_rope(c))
  moe = Moe(c.get('num_local_experts', 16), router, llama.glu(c, bias=False))
  layers = [Block(attention, moe, norm)] * c['num_hidden_layers']
  return llama.decoder(c, layers, norm, bias=c.get('lm_head_bias', False))


def _rope(c: Fields) -> RoPE:
  """Return the rotary position embedding; its LongRoPE factor has two names in the config.

  Note:
    transformers 5.23 uses the short factors for sequences longer than
    `original_max_position_embeddings`. The published code and tfm use the long ones.
  """
  given = rope_fields(c)
  scales = [given.pop(name, None) for name in ('short_mscale', 'long_mscale')]
  if scales[0] != scales[1]:
    raise errors.UserError(
      f'{c.where}: rope_parameters: short_mscale is {scales[0]} and long_mscale {scales[1]}. '
      'Expected equal factors: tfm scales cos and sin of all sequences by one factor.'
    )
  given |= {} if scales[0] is None else {'attention_factor': scales[0]}
  return rope_from(c, given, 1e6)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  moe, fields = block.ffn, llama.sizes(m)
  rope = fields['rope_parameters']
  if isinstance(scaling := block.mixer.relative.scaling, LongRoPE):
    factor = rope.pop('attention_factor', None) or scaling.scale([1.0], 1.0)[1]
    rope |= {'short_mscale': factor, 'long_mscale': factor}
  return {
    **fields, 'attention_bias': bool(block.mixer.bias), 'sliding_window': window_of(m),
    'num_local_experts': moe.experts, 'num_experts_per_tok': 2,
    'router_aux_loss_coef': moe.router.balance,
    'router_jitter_noise': moe.router.jitter, 'intermediate_size': moe.expert.d_ff,
    'hidden_act': name_of(moe.expert.act), 'lm_head_bias': m.lm is not None and m.lm.bias,
  }  # fmt: skip


MODELS = {'phi3.5-moe': Entry(phimoe(32, 4096, 32, 8, 6400, 16), 41_873_153_344, '41.9B', PAPER)}
