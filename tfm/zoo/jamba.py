"""Jamba (AI21, 2024): seven Mamba layers to one attention layer, experts in every other layer."""

import math
from typing import Any

from tfm.core import errors
from tfm.model.spec import Block, Model, depth
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.base import FFN
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.mamba import Mamba
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.base import Relative
from tfm.parts.router.top_k import TopK
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of
from tfm.zoo.layers import choose, layers_of, segments
from tfm.zoo.mamba import expand

PAPER = 'Jamba: A Hybrid Transformer-Mamba Language Model, arXiv:2403.19887'


def jamba(depth: int, d: int, heads: int, kv_heads: int, d_ff: int, vocab: int) -> Model:
  """Return a pre-norm hybrid with RMSNorm and SwiGLU, and 2 of 16 experts per token.

  Attention has no positions. The weights of the selected experts do not sum to 1.

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
  norm = RMSNorm(1e-6)
  attention = Attention(heads, kv_heads, d // heads)
  recurrent = Mamba(2 * d, 16, math.ceil(d / 16), norm=norm)
  ffns: tuple[FFN, ...] = (Glu(d_ff), Moe(16, TopK(0.001, 0.0, 2, renormalize=False), Glu(d_ff)))
  mixers = choose((i % 8 == 4 for i in range(depth)), attention, recurrent)
  layers = [Block(mixer, ffns[i % 2], norm) for i, mixer in enumerate(mixers)]
  head = Lm(tied=False)
  return Model(
    Tokens(vocab),
    d,
    segments(layers),
    heads={'lm': head},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  d, n, norm = c['hidden_size'], c['num_hidden_layers'], RMSNorm(c.get('rms_norm_eps', 1e-6))
  c.skip('use_mamba_kernels', 'use_mambapy', 'use_associative_scan', 'num_logits_to_keep')
  c.skip('max_position_embeddings', 'calc_logits_for_entire_prompt')
  c.only(mamba_inner_layernorms=True)
  attention = llama.attention(c, 8, relative=Relative(), bias='')
  rank = c.get('mamba_dt_rank', 'auto')
  recurrent = Mamba(
    int(c.get('mamba_expand', 2) * d), c.get('mamba_d_state', 16),
    math.ceil(d / 16) if rank == 'auto' else rank,
    c.get('mamba_d_conv', 4), bias=c.get('mamba_proj_bias', False),
    conv_bias=c.get('mamba_conv_bias', True),
    act=c.act('hidden_act', 'silu'), norm=norm,
  )  # fmt: skip
  router = TopK(
    c.get('router_aux_loss_coef', 0.001), 0.0, c.get('num_experts_per_tok', 2), renormalize=False
  )
  dense, experts = llama.glu(c, bias=False), c.get('num_experts', 16)
  moe: FFN = Moe(experts, router, dense) if experts > 1 else dense
  at, sparse = _layers_of_kind(c, 'attn', 8, 4), _layers_of_kind(c, 'expert', 2, 1)
  mixers = choose(at, attention, recurrent)
  ffns = choose(sparse, moe, dense)
  layers = [Block(mixer, ffn, norm) for mixer, ffn in zip(mixers, ffns, strict=True)]
  return llama.decoder(c, layers[:n], norm)


def _layers_of_kind(c: Fields, name: str, period: int, offset: int) -> list[bool]:
  """Return for each layer whether it is of a periodic kind."""
  period, offset = c.get(f'{name}_layer_period', period), c.get(f'{name}_layer_offset', offset)
  return [i % period == offset for i in range(c['num_hidden_layers'])]


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec.

  Raises:
    UserError: if attention or experts are not periodic.
  """
  blocks: list[Any] = layers_of(m)
  a: Any = next(b.mixer for b in blocks if hasattr(b.mixer, 'sizes'))
  r: Any = next(b.mixer for b in blocks if isinstance(b.mixer, Mamba))
  moe: Any = next((b.ffn for b in blocks if hasattr(b.ffn, 'expert')), None)
  dense: Any = next((b.ffn for b in blocks if hasattr(b.ffn, 'd_ff')), None) or moe.expert
  attends = [hasattr(b.mixer, 'sizes') for b in blocks]
  sparse = [hasattr(b.ffn, 'expert') for b in blocks]
  routing = {'num_experts_per_tok': 1, 'router_aux_loss_coef': 0.0}
  if moe:
    routing = {'num_experts_per_tok': moe.router.k, 'router_aux_loss_coef': moe.router.balance}
  heads, kv_heads, _ = a.sizes(m.d_model)
  return {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'num_hidden_layers': depth(m),
    'num_attention_heads': heads,
    'num_key_value_heads': kv_heads, 'attention_dropout': a.dropout, 'rms_norm_eps': m.norm.eps,
    'intermediate_size': dense.d_ff, 'hidden_act': name_of(dense.act),
    'tie_word_embeddings': m.lm is None or m.lm.tied, 'mamba_d_state': r.d_state,
    'mamba_d_conv': r.conv,
    'mamba_expand': expand(r.width, m), 'mamba_dt_rank': r.rank, 'mamba_conv_bias': r.conv_bias,
    'mamba_proj_bias': r.bias, **_period('attn', attends), **_period('expert', sparse),
    'num_experts': moe.experts if moe else 1, **routing,
  }  # fmt: skip


def _period(name: str, flags: list[bool]) -> dict[str, int]:
  at = [i for i, found in enumerate(flags) if found] or [0]
  period = at[1] - at[0] if len(at) > 1 else len(flags)
  if any(flags) and flags != [i % period == at[0] for i in range(len(flags))]:
    raise errors.UserError(
      f'export: the {name} layers are {at}. Expected a constant distance between them.'
    )
  return {f'{name}_layer_period': period, f'{name}_layer_offset': at[0]}


MODELS = {'jamba-v0.1': Entry(jamba(32, 4096, 32, 8, 14_336, 65_536), 51_570_323_328, '52B', PAPER)}
