"""Qwen3.5 (2026), text model: Qwen3-Next's mixers with dense feed-forwards or experts."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.base import FFN
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.base import Mixer
from tfm.parts.mixer.gated_delta import GatedDelta
from tfm.parts.relative.rope import RoPE
from tfm.parts.router.top_k import TopK
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.qwen3_next import experts, mixed, mixers, scaled, top_of
from tfm.zoo.rope import rope_fields, rope_from

POST = 'Qwen3.5, model card, Qwen Team 2026'


def qwen3_5(
  depth: int, d: int, heads: int, kv_heads: int, ffn: FFN, recurrent: GatedDelta
) -> Model:
  """Return a pre-norm hybrid: three Gated DeltaNet layers per gated attention layer.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    ffn: feed-forward of a layer.
    recurrent: mixer of the recurrent layers.

  Returns:
    The spec of the model.
  """
  norm = scaled(1e-6)
  attention = Attention(heads, kv_heads, 256, RoPE(1e7, fraction=0.25), qk_norm=norm, gated=True)
  blocks = [Block(mixer, ffn, norm) for mixer in (recurrent, recurrent, recurrent, attention)]
  segments = (Segment(tuple(blocks), depth // 4),)
  return Model(
    Tokens(248_320),
    d,
    segments,
    heads={'lm': Lm(tied=False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json` without experts."""
  norm, ffn = scaled(c.get('rms_norm_eps', 1e-6)), llama.glu(c, bias=False)
  return llama.decoder(c, [Block(mixer, ffn, norm) for mixer in _mixers(c, 4)], norm)


def read_moe(c: Fields) -> Model:
  """Return the spec of a published `config.json` with experts."""
  norm, act = scaled(c.get('rms_norm_eps', 1e-6)), c.act('hidden_act', 'silu')
  shared = Glu(c.get('shared_expert_intermediate_size', 512), act)
  expert = Glu(c.get('moe_intermediate_size', 512), act)
  c.only(norm_topk_prob=True)
  c.skip('intermediate_size')  # no layer is dense
  moe = Moe(c.get('num_experts', 256), top_of(c, 8), expert, shared, shared_gate=True)
  return llama.decoder(c, [Block(mixer, moe, norm) for mixer in _mixers(c, 2)], norm)


def _mixers(c: Fields, kv_heads: int) -> list[Mixer]:
  """Return the mixer of every layer."""
  c.only(attn_output_gate=True, mtp_use_dedicated_embeddings=False)
  # The run sets the dtype of states; multi-token prediction is not loaded.
  c.skip('mamba_ssm_dtype', 'mtp_num_hidden_layers')
  given = rope_fields(c)
  # These keys set positions of image patches; text has one position per token.
  fields = {
    name: value
    for name, value in given.items()
    if name not in ('mrope_section', 'mrope_interleaved')
  }
  return mixers(c, kv_heads, rope_from(c, fields, fraction=0.25))


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec without experts."""
  return mixed(m)


def write_moe(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec with experts."""
  fields = {**mixed(m), **experts(m)}
  del fields['norm_topk_prob']
  return fields


_RECURRENT = GatedDelta(32, 16, 128, 128)
_MOE = Moe(256, TopK(0.001, 0.0, 8), Glu(512), Glu(512), shared_gate=True)

MODELS = {
  'qwen3.5-9b': Entry(qwen3_5(32, 4096, 16, 4, Glu(12_288), _RECURRENT), 8_953_803_264, '9B', POST),
  'qwen3.5-35b-a3b': Entry(qwen3_5(40, 2048, 16, 2, _MOE, _RECURRENT), 34_660_610_688, '35B', POST),
}
