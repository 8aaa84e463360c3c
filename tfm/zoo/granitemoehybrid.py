"""Granite 4 (IBM, 2025): Mamba-2 with a few attention layers, and experts or a dense SwiGLU."""

from typing import Any

from tfm.model.spec import Block, Model
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.base import FFN
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.mamba2 import Mamba2
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.base import Relative
from tfm.parts.residual_scale.base import ResidualScale
from tfm.parts.residual_scale.fixed import Fixed
from tfm.parts.router.top_k import TopK
from tfm.zoo import llama
from tfm.zoo.bamba import mamba2, mamba_fields
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of, rope_parameters
from tfm.zoo.granite import multipliers
from tfm.zoo.granitemoe import shared_mixture
from tfm.zoo.layers import GLOBAL, as_attention, check_layer_types, choose, layers_of, segments

CARD = 'Granite 4.0, model card, IBM 2025'
LINEAR = 'linear_attention'
#: Published name of a layer type -> present name.
_OLDER = {'attention': GLOBAL, 'mamba': LINEAR}


def granitemoehybrid(
  d: int, heads: int, kv_heads: int, ffn: FFN, recurrent: Mamba2, logits: float, at: tuple[int, ...]
) -> Model:
  """Return a tied pre-norm hybrid of 40 layers with Granite's multipliers.

  Attention has no positions.

  Args:
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    ffn: feed-forward of a layer.
    recurrent: mixer of the recurrent layers.
    logits: divisor of the logits.
    at: indices of the attention layers.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  attention = Attention(heads, kv_heads, 128, scale=1 / 128)
  mixers = choose((i in at for i in range(40)), attention, recurrent)
  layers = [Block(mixer, ffn, norm, residual_scale=Fixed(0.22)) for mixer in mixers]
  head = Lm(scale=1 / logits)
  return Model(
    Tokens(100_352, 12.0),
    d,
    segments(layers),
    heads={'lm': head},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(normalization_function='rmsnorm')
  c.skip('init_method')
  norm = RMSNorm(c.get('rms_norm_eps', 1e-6))
  multiplier = c.get('residual_multiplier', 1.0)
  n = c['num_hidden_layers']
  rope = c.rope()
  relative = rope if c.get('position_embedding_type') == 'rope' else Relative()
  attention = llama.attention(c, relative=relative, scale=float(c.get('attention_multiplier', 1.0)))
  recurrent = mamba2(c, norm=norm)
  types = [_OLDER.get(t, t) for t in c.get('layer_types', [LINEAR] * n)]
  check_layer_types(c, types, (LINEAR, GLOBAL))
  ffn, residual_scale = _ffn(c), ResidualScale() if multiplier == 1 else Fixed(float(multiplier))
  mixers = choose((t == GLOBAL for t in types), attention, recurrent)
  layers = [Block(mixer, ffn, norm, residual_scale=residual_scale) for mixer in mixers]
  embed = Tokens(scale=float(c.get('embedding_multiplier', 1.0)))
  scale = 1 / c.get('logits_scaling', 1.0)
  return llama.decoder(c, layers, norm, embed=embed, scale=scale)


def _ffn(c: Fields) -> FFN:
  """Return the feed-forward of every layer: experts with a shared one, or the shared one only."""
  if c.get('num_local_experts', 8):
    return shared_mixture(c)
  c.skip('num_experts_per_tok', 'intermediate_size')
  return Glu(c.get('shared_intermediate_size', 1024), c.act('hidden_act', 'silu'))


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  blocks: list[Any] = layers_of(m)
  ffn = blocks[0].ffn
  attention = next((b.mixer for b in blocks if hasattr(b.mixer, 'sizes')), Attention(1))
  positions = 'rope' if hasattr(attention.relative, 'base') else None
  fields = {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'num_hidden_layers': len(blocks),
    'rms_norm_eps': m.norm.eps,
    'tie_word_embeddings': m.lm is None or m.lm.tied,
    'position_embedding_type': positions,
    'layer_types': choose((hasattr(b.mixer, 'sizes') for b in blocks), GLOBAL, LINEAR),
    **mamba_fields(m),
    **_attention(m, attention), **_ffn_fields(ffn),
  }  # fmt: skip
  return {**fields, **multipliers(as_attention(m))}


def _attention(m: FamilyModel, a: Attention) -> dict[str, Any]:
  heads, kv_heads, head_dim = a.sizes(m.d_model)
  fields = {
    'num_attention_heads': heads, 'num_key_value_heads': kv_heads, 'head_dim': head_dim,
    'attention_bias': bool(a.bias), 'attention_dropout': a.dropout,
  }  # fmt: skip
  relative: Any = a.relative
  return (
    {**fields, 'rope_parameters': rope_parameters(relative)}
    if hasattr(relative, 'base')
    else fields
  )


def _ffn_fields(ffn: Any) -> dict[str, Any]:
  if not hasattr(ffn, 'expert'):
    act, width = name_of(ffn.act), ffn.d_ff
    return {
      'num_local_experts': 0, 'shared_intermediate_size': width, 'intermediate_size': width,
      'hidden_act': act,
    }  # fmt: skip
  return {
    'num_local_experts': ffn.experts, 'num_experts_per_tok': ffn.router.k,
    'intermediate_size': ffn.expert.d_ff,
    'router_aux_loss_coef': ffn.router.balance, 'hidden_act': name_of(ffn.expert.act),
    'shared_intermediate_size': 0 if ffn.shared is None else ffn.shared.d_ff,
  }  # fmt: skip


def _experts(n: int, k: int, width: int, shared: int) -> Moe:
  return Moe(n, TopK(0.0, 0.0, k), Glu(width), Glu(shared))


_AT = (5, 15, 25, 35)

_TINY = granitemoehybrid(1536, 12, 4, _experts(64, 6, 512, 1024), Mamba2(48, 64, 128, 1), 6.0, _AT)
_SMALL = granitemoehybrid(
  4096, 32, 8, _experts(72, 10, 768, 1536), Mamba2(128, 64, 128, 1), 16.0, _AT
)

MODELS = {
  'granite4-h-tiny': Entry(_TINY, 6_939_037_248, '6.9B', CARD),
  'granite4-h-small': Entry(_SMALL, 32_207_337_984, '32B', CARD),
}
