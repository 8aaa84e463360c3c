"""Hunyuan dense (Tencent, 2025): Llama's block with query/key norms after the rotation."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

CARD = 'Hunyuan-7B, model card, Tencent 2025'


def hunyuan(depth: int, d: int, heads: int, kv_heads: int, d_ff: int, vocab: int) -> Model:
  """Return a tied pre-norm decoder with RMSNorm, SwiGLU and grouped-query attention.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.
    vocab: size of the vocabulary.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  rope = RoPE(ntk_base(1e4, 1000.0, 128))
  block = Block(
    Attention(heads, kv_heads, 128, rope, qk_norm=norm, rotate_first=True), Glu(d_ff), norm
  )
  return Model(
    Tokens(vocab), d, (Segment((block,), depth),), norm=norm, init=Normal(depth_scaled=False)
  )


def ntk_base(base: float, alpha: float, d: int) -> float:
  """Return the NTK-aware base of a rotary position embedding.

  Args:
    base: original base.
    alpha: factor of the context length.
    d: width of a head.

  Returns:
    The larger base.
  """
  return float(base * alpha ** (d / (d - 2)))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(pretraining_tp=1, use_qk_norm=True, use_cla=False)
  c.skip(
    'eod_token_id',
    'pad_id',
    'im_start_id',
    'im_end_id',
    'im_newline_id',
    'text_start_id',
    'text_end_id',
  )
  c.skip('use_rotary_pos_emb', 'attention_head_dim', 'mlp_bias', 'norm_type')
  norm = RMSNorm(c.get('rms_norm_eps', 1e-5))
  attention = llama.attention(c, relative=_rope(c), qk_norm=norm, rotate_first=True)
  return llama.decoder(
    c, [Block(attention, llama.glu(c, bias=False), norm)] * c['num_hidden_layers'], norm
  )


def _rope(c: Fields) -> RoPE:
  """Return the rotary position embedding; 'dynamic' with `alpha` is a fixed NTK-aware base."""
  given = {**(c.get('rope_scaling') or {}), **(c.get('rope_parameters') or {})}
  alpha = given.get('alpha')
  if given.get('rope_type', given.get('type')) != 'dynamic' or not alpha:
    return c.rope()
  c.skip('max_position_embeddings')
  base = given.get('rope_theta', c.get('rope_theta', 1e4))
  return RoPE(
    ntk_base(base, alpha, c.get('head_dim', c['hidden_size'] // c['num_attention_heads']))
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return {**llama.sizes(m), 'attention_bias': bool(m.segments[0].pattern[0].mixer.bias)}


MODELS = {
  'hunyuan-7b': Entry(hunyuan(32, 4096, 32, 8, 14_336, 128_167), 7_504_568_320, '7.5B', CARD),
}
