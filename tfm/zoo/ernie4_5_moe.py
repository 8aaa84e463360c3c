"""ERNIE 4.5 mixtures (Baidu, 2025): experts selected by softmax plus a bias, and shared ones."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.base import FFN
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.router.grouped import Grouped
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of
from tfm.zoo.layers import choose, layers_of

PAPER = 'ERNIE 4.5 Technical Report, Baidu 2025'


def _router(balance: float, k: int) -> Grouped:
  return Grouped(balance, 0.0, k, 'softmax', groups=1, keep=1, group_score='max')


def ernie4_5_moe(
  depth: int, d: int, heads: int, kv_heads: int, d_ff: int, width: int, experts: int, k: int
) -> Model:
  """Return a tied pre-norm decoder: one dense SwiGLU layer, then experts and two shared ones.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the dense feed-forward.
    width: hidden width of an expert.
    experts: number of experts.
    k: number of experts per token.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  attention = Attention(heads, kv_heads, 128, RoPE(5e5, 'interleaved'))
  moe = Moe(experts, _router(0.001, k), Glu(width), Glu(2 * width))
  segments = (
    Segment((Block(attention, Glu(d_ff), norm),)),
    Segment((Block(attention, moe, norm),), depth - 1),
  )
  return Model(Tokens(103_424), d, segments, norm=norm, init=Normal(depth_scaled=False))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(moe_norm_min=1e-12, moe_gate='topk', compression_ratio=1.0)
  # Training settings, and multi-token prediction, which is not loaded.
  c.skip('moe_capacity', 'moe_use_aux_free', 'multi_token_pred_lambda', 'num_nextn_predict_layers')
  norm = RMSNorm(c.get('rms_norm_eps', 1e-5))
  bias = c.get('use_bias', False)
  n = c['num_hidden_layers']
  attention = llama.attention(
    c, 4, relative=c.rope(5e5, 'interleaved'), bias='qkvo' if bias else '', dropout=0.0
  )
  act, width = c.act('hidden_act', 'silu'), c.get('moe_intermediate_size', 1536)
  experts = c.get('moe_num_experts', c.get('num_experts', 64))
  router = _router(
    c.get('router_aux_loss_coef', 0.001), c.get('moe_k', c.get('num_experts_per_tok', 6))
  )
  n_shared = c.get('moe_num_shared_experts', 2)
  shared = Glu(n_shared * width, act, bias) if n_shared else None
  moe = Moe(experts, router, Glu(width, act), shared)
  step, first, last = (c.get(f'moe_layer_{name}', usual) for name, usual in _PLACES.items())
  last = n - 1 if last == -1 else last
  sparse = [(i + 1) % step == 0 and first <= i <= last for i in range(n)]
  dense = llama.glu(c, bias=bias)
  ffns: list[FFN] = choose(sparse, moe, dense)
  layers = [Block(attention, ffn, norm) for ffn in ffns]
  return llama.decoder(c, layers, norm, True, bias=bias)


#: Fields that select the layers with experts, and their defaults.
_PLACES = {'interval': 1, 'start_index': 1, 'end_index': -1}


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  ffns = [b.ffn for b in layers_of(m)]
  at = [i for i, f in enumerate(ffns) if hasattr(f, 'expert')]
  moe: Any = ffns[at[0]]
  fields = {
    'intermediate_size': moe.expert.d_ff,
    **llama.sizes(m),
    'hidden_act': name_of(moe.expert.act),
  }
  del fields['attention_dropout']
  step = at[1] - at[0] if len(at) > 1 else at[0] + 1
  return {
    **fields, 'use_bias': bool(m.segments[0].pattern[0].mixer.bias), 'moe_num_experts': moe.experts,
    'moe_k': moe.router.k, 'moe_intermediate_size': moe.expert.d_ff,
    'router_aux_loss_coef': moe.router.balance,
    'moe_num_shared_experts': 0 if moe.shared is None else moe.shared.d_ff // moe.expert.d_ff,
    'moe_layer_interval': step, 'moe_layer_start_index': at[0], 'moe_layer_end_index': at[-1],
  }  # fmt: skip


#: The numbers of parameters include the router biases.
MODELS = {
  'ernie4.5-21b-a3b': Entry(
    ernie4_5_moe(28, 2560, 20, 4, 12_288, 1536, 64, 6), 21_825_437_888, '21.8B', PAPER
  )
}
