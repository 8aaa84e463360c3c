"""DBRX (Databricks, 2024): a mixture of 16 experts with clipped queries, keys and values."""

from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.router.top_k import TopK
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of, rope_parameters
from tfm.zoo.layers import segments

POST = 'Introducing DBRX: A New State-of-the-Art Open LLM, Databricks 2024'
NORM = LayerNorm(1e-5, bias=False)


def dbrx(depth: int, d: int, heads: int, kv_heads: int, d_ff: int) -> Model:
  """Return a pre-norm decoder with RoPE, grouped-query attention and 4 of 16 experts per token.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  attention = Attention(heads, kv_heads, d // heads, RoPE(5e5), clip=8.0)
  segment = Segment((Block(attention, Moe(16, TopK(k=4), Glu(d_ff)), NORM),), depth)
  return Model(
    Tokens(100_352),
    d,
    (segment,),
    heads={'lm': Lm(tied=False)},
    norm=NORM,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(tie_word_embeddings=False)
  c.skip('num_key_value_heads', 'max_seq_len')
  d, heads = c['d_model'], c['n_heads']
  a, f = c.part('attn_config'), c.part('ffn_config')
  # transformers 5 reads `rope_parameters` only, and writes the older field too.
  rope = c.rope(a.get('rope_theta', 1e4), partial=False)
  clip, dropout = a.get('clip_qkv'), a.get('attn_pdrop', 0.0)
  attention = Attention(heads, a.get('kv_n_heads', 1), d // heads, rope, clip=clip, dropout=dropout)
  f.skip('moe_jitter_eps', 'hidden_size')
  power = f.given('moe_normalize_expert_weights', 1.0)
  if power is not None:
    f.only(moe_normalize_expert_weights=1.0)
  f.only(uniform_expert_assignment=False)
  act = Fields(f.get('ffn_act_fn', {'name': 'silu'}), f.where).act('name', 'silu')
  router = TopK(
    f.get('moe_loss_weight', 0.01), 0.0, f.get('moe_top_k', 1), renormalize=power is not None
  )
  moe = Moe(f.get('moe_num_experts', 4), router, Glu(f.get('ffn_hidden_size', 3584), act))
  block = Block(attention, moe, NORM, dropout=c.get('resid_pdrop', 0.0))
  return Model(
    Tokens(c['vocab_size'], dropout=c.get('emb_pdrop', 0.0)),
    d,
    segments([block] * c['n_layers']),
    heads={'lm': Lm(tied=False)},
    norm=NORM,
    init=Normal(depth_scaled=False),
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  a, moe = block.mixer, block.ffn
  heads, kv_heads, _ = a.sizes(m.d_model)
  return {
    'vocab_size': m.vocab, 'd_model': m.d_model, 'n_heads': heads, 'n_layers': depth(m),
    'max_seq_len': 131_072,
    'resid_pdrop': block.dropout, 'emb_pdrop': m.embed.dropout,
    'rope_parameters': rope_parameters(a.relative),
    'attn_config': {
      'attn_pdrop': a.dropout, 'clip_qkv': a.clip, 'kv_n_heads': kv_heads,
      'rope_theta': a.relative.base,
    },
    'ffn_config': {
      'ffn_act_fn': {'name': name_of(moe.expert.act)}, 'ffn_hidden_size': moe.expert.d_ff,
      'moe_num_experts': moe.experts, 'moe_top_k': moe.router.k,
      'moe_loss_weight': moe.router.balance,
      'moe_normalize_expert_weights': 1.0 if moe.router.renormalize else None,
    },
    'tie_word_embeddings': False,
  }  # fmt: skip


MODELS = {'dbrx': Entry(dbrx(40, 6144, 48, 8, 10_752), 131_596_523_520, '132B', POST)}
