"""DeepSeek-V2 and V3 (2024): latent attention, and fine-grained experts with shared ones."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.base import FFN
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.mla import MLA
from tfm.parts.mtp.base import MTP
from tfm.parts.mtp.sequential import SequentialMTP
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.scaling.yarn import Yarn
from tfm.parts.router.base import Router
from tfm.parts.router.grouped import Grouped
from tfm.parts.router.top_k import TopK
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of, rope_parameters
from tfm.zoo.layers import choose, layers_of

PAPER_2 = 'DeepSeek-V2, arXiv:2405.04434'
PAPER_3 = 'DeepSeek-V3 Technical Report, arXiv:2412.19437'


def deepseek(
  depth: int,
  dense: int,
  d: int,
  attention: MLA,
  d_ff: int,
  vocab: int,
  experts: Moe,
  mtp: MTP | None = None,
) -> Model:
  """Return a pre-norm decoder with RMSNorm, dense layers first, then layers with experts.

  Args:
    depth: number of layers.
    dense: number of dense layers before the first layer with experts.
    d: width of the residual stream.
    attention: multi-head latent attention.
    d_ff: hidden width of the dense feed-forward.
    vocab: size of the vocabulary.
    experts: mixture of experts.
    mtp: multi-token prediction; None has none.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-6)
  segments = (
    Segment((Block(attention, Glu(d_ff), norm),), dense),
    Segment((Block(attention, experts, norm),), depth - dense),
  )
  return Model(
    Tokens(vocab),
    d,
    segments,
    heads={'lm': Lm(tied=False)},
    norm=norm,
    init=Normal(0.006, depth_scaled=False),
    mtp=mtp,
  )


def read_v2(c: Fields) -> Model:
  """Return the spec of a published `config.json` of V2."""
  c.only(scoring_func='softmax', norm_topk_prob=False)
  common: dict[str, Any] = {
    'score': 'softmax',
    'renormalize': False,
    'scale': float(c.get('routed_scaling_factor', 1.0)),
  }
  balance, k = c.get('aux_loss_alpha', 0.001), c['num_experts_per_tok']
  if c.choice('topk_method', {'greedy': True, 'group_limited_greedy': False}, 'greedy'):
    c.skip('n_group', 'topk_group')
    router = TopK(balance, 0.0, k, **common)
  else:
    groups: dict[str, Any] = {
      'groups': c['n_group'],
      'keep': c['topk_group'],
      'group_score': 'max',
      'rate': None,
    }
    router = Grouped(balance, 0.0, k, **common, **groups)
  moe = _mixture(c, 64, router, 1407, c.get('n_shared_experts', 2))
  return _decoder(c, moe, c.get('first_k_dense_replace', 0), 'interleaved')


def read_v3(c: Fields) -> Model:
  """Return the spec of a published `config.json` of V3, with multi-token prediction.

  `num_nextn_predict_layers` is the number of predicted later tokens.
  """
  c.only(scoring_func='sigmoid', topk_method='noaux_tc')
  router = Grouped(
    c.get('aux_loss_alpha', 0.0001), 0.0, c.get('num_experts_per_tok', 8), 'sigmoid',
    c.get('norm_topk_prob', True),
    float(c.get('routed_scaling_factor', 2.5)), c.get('n_group', 8), c.get('topk_group', 4),
  )  # fmt: skip
  moe = _mixture(c, 256, router, 2048, c.get('n_shared_experts', 1))
  layout = 'interleaved' if c.given('rope_interleave', True) else 'halves'
  spec: Any = _decoder(c, moe, c.get('first_k_dense_replace', 3), layout)
  ahead = c.get('num_nextn_predict_layers', c.get('num_mtp_layers', 0))
  return dataclasses.replace(spec, mtp=SequentialMTP(ahead, spec.norm)) if ahead else spec


def _mixture(c: Fields, n: int, router: Router, width: int, shared: int) -> Moe:
  act, width = c.act('hidden_act', 'silu'), c.get('moe_intermediate_size', width)
  n = c.get('n_routed_experts', c.get('num_local_experts', c.get('num_experts', n)))
  shared_expert = Glu(shared * width, act, c.get('mlp_bias', False)) if shared else None
  return Moe(n, router, Glu(width, act), shared_expert)


def _decoder(c: Fields, moe: Moe, dense: int, layout: str) -> Model:
  heads, rank = c['num_attention_heads'], c.given('q_lora_rank', 1536)
  c.only(num_key_value_heads=heads, moe_layer_freq=1)
  # Derived from other fields, or used in training only.
  c.skip('head_dim', 'qk_head_dim', 'ep_size', 'seq_aux')
  # The norms inside attention have a fixed epsilon, and direct query projections have no bias.
  bias = ''
  if c.get('attention_bias'):
    bias = 'co' if rank is None else 'qco'
  attention = MLA(
    heads, rank, c.get('kv_lora_rank', 512), c.get('qk_nope_head_dim', 128),
    c.get('qk_rope_head_dim', 64),
    c.get('v_head_dim', 128), c.rope(layout=layout, partial=False), norm=RMSNorm(1e-6), bias=bias,
    dropout=c.get('attention_dropout', 0.0),
  )  # fmt: skip
  norm = RMSNorm(c.get('rms_norm_eps', 1e-6))
  first = llama.glu(c) if dense else moe
  ffns: list[FFN] = choose((i < dense for i in range(c['num_hidden_layers'])), first, moe)
  return llama.decoder(c, [Block(attention, ffn, norm) for ffn in ffns], norm)


def write_v2(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` of V2 for a spec."""
  router = _first_moe(m).router
  groups = {'topk_method': 'greedy', 'n_group': None, 'topk_group': None}
  if hasattr(router, 'groups'):
    groups = {
      'topk_method': 'group_limited_greedy',
      'n_group': router.groups,
      'topk_group': router.keep,
    }
  shared = _first_moe(m).shared
  return {**_written(m), **groups, 'mlp_bias': shared is not None and shared.bias}


def write_v3(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` of V3 for a spec."""
  router, layout = _first_moe(m).router, m.segments[0].pattern[0].mixer.relative.layout
  return {
    **_written(m), 'n_group': router.groups, 'topk_group': router.keep,
    'norm_topk_prob': router.renormalize,
    'rope_interleave': layout == 'interleaved',
    'num_nextn_predict_layers': m.mtp.depth if m.mtp else 0,
  }  # fmt: skip


def _first_moe(m: FamilyModel) -> Any:
  return next(b.ffn for b in layers_of(m) if hasattr(b.ffn, 'experts'))


def _written(m: FamilyModel) -> dict[str, Any]:
  a, moe, norm = m.segments[0].pattern[0].mixer, _first_moe(m), m.norm
  dense = [b.ffn for b in layers_of(m) if hasattr(b.ffn, 'd_ff')]
  return {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'num_hidden_layers': depth(m),
    'num_attention_heads': a.heads,
    'num_key_value_heads': a.heads, 'q_lora_rank': a.q_rank, 'kv_lora_rank': a.kv_rank,
    'qk_rope_head_dim': a.rope_dim,
    'qk_nope_head_dim': a.nope_dim, 'v_head_dim': a.v_dim,
    'rope_parameters': rope_parameters(a.relative),
    'max_position_embeddings': getattr(a.relative.scaling, 'length', 131_072),
    'rms_norm_eps': norm.eps,
    'attention_bias': bool(a.bias), 'attention_dropout': a.dropout,
    'hidden_act': name_of(moe.expert.act),
    'intermediate_size': dense[0].d_ff if dense else moe.expert.d_ff,
    'first_k_dense_replace': len(dense),
    'n_routed_experts': moe.experts, 'num_experts_per_tok': moe.router.k,
    'moe_intermediate_size': moe.expert.d_ff,
    'n_shared_experts': moe.shared.d_ff // moe.expert.d_ff,
    'routed_scaling_factor': moe.router.scale,
    'tie_word_embeddings': m.lm is None or m.lm.tied,
  }  # fmt: skip


def _latent(heads: int, q_rank: int | None, mscale: float) -> MLA:
  yarn = Yarn(40.0, 4096, mscale=mscale, mscale_all=mscale)
  return MLA(heads, q_rank, 512, 128, 64, 128, RoPE(1e4, 'interleaved', scaling=yarn))


def _experts(n: int, width: int, shared: int, router: Router) -> Moe:
  return Moe(n, router, Glu(width), shared=Glu(shared * width))


_V2_LITE = TopK(k=6, renormalize=False, balance=0.001, z=0.0)
_V2 = Grouped(
  k=6, score='softmax', renormalize=False, scale=16.0, groups=8, keep=3, group_score='max',
  rate=None, balance=0.003,
  z=0.0,
)  # fmt: skip
_V3 = Grouped(k=8, scale=2.5, groups=8, keep=4, balance=0.0001, z=0.0)


def _v3(mtp: MTP | None = None) -> Model:
  return deepseek(
    61, 3, 7168, _latent(128, 1536, 1.0), 18_432, 129_280, _experts(256, 2048, 1, _V3), mtp
  )


_LITE_SPEC = deepseek(
  27, 1, 2048, _latent(16, None, 0.707), 10_944, 102_400, _experts(64, 1408, 2, _V2_LITE)
)
_V2_SPEC = deepseek(
  60, 1, 5120, _latent(128, 1536, 0.707), 12_288, 102_400, _experts(160, 1536, 2, _V2)
)

#: V3's number of parameters includes 58 x 256 router biases; `-mtp` adds multi-token prediction.
MODELS = {
  'deepseek-v2-lite': Entry(_LITE_SPEC, 15_706_484_224, '15.7B', PAPER_2),
  'deepseek-v2': Entry(_V2_SPEC, 235_741_434_880, '236B', PAPER_2),
  'deepseek-v3': Entry(_v3(), 671_026_404_352 + 58 * 256, '671B', PAPER_3),
  'deepseek-v3-mtp': Entry(
    _v3(SequentialMTP()), 671_026_404_352 + 58 * 256 + 11_610_068_224, '685B', PAPER_3
  ),
}
