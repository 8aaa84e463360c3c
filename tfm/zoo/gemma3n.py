"""The language model of Gemma 3n (Google, 2025).

A Gemma 3 with AltUp, LAuReL, per-layer embeddings, and layers that share keys and values.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Block, Model
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.embed.per_layer import PerLayer
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.borrowed import Borrowed
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual.altup import AltUp
from tfm.parts.residual_layout.laurel import Laurel
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of, rope_parameters
from tfm.zoo.gemma3 import local_rope
from tfm.zoo.layers import (
  GLOBAL,
  LOCAL,
  causal_mask,
  choose,
  every_nth_global,
  layers_of,
  masks,
  segments,
  types_of,
  window_of,
)

CARD = 'Gemma 3n, model card, Google 2025'

_ACT = 'gelu_pytorch_tanh'


def gemma3n(depth: int, d_ff: int, borrowing: int) -> Model:
  """Return a decoder with full attention in every fifth layer and windows in the others.

  Args:
    depth: number of layers.
    d_ff: hidden width of the feed-forward.
    borrowing: number of last layers that use the keys and values of earlier layers.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-6, scale_first=True)
  plain = RMSNorm(1e-6, scale=False)
  far = Attention(8, 2, 256, RoPE(1e6), qk_norm=norm, v_norm=plain, scale=1.0)
  close = dataclasses.replace(far, relative=RoPE(1e4), mask=causal_mask(512))
  types = every_nth_global(depth, 5)
  mixers = lending(choose((t == LOCAL for t in types), close, far), types, borrowing)
  ffns = [Glu(d_ff, GeluTanh(), sparsity=0.95 * (i < 10)) for i in range(depth)]
  layers = [Block(m, ffn, norm, Laurel(64, norm)) for m, ffn in zip(mixers, ffns, strict=True)]
  embed = PerLayer(262_400, power=0.5, layer_vocab=262_144, layer_dim=256, layer_norm=norm)
  return Model(
    embed, 2048, segments(layers), heads={'lm': Lm(cap=30.0)}, norm=norm,
    init=Normal(depth_scaled=False),
    residual=AltUp(4, norm, inputs=256),
  )  # fmt: skip


def lending(mixers: Sequence[Attention], types: Sequence[str], borrowing: int) -> list[Attention]:
  """Return mixers of which the last ones use the keys and values of an earlier layer.

  Args:
    mixers: the mixer of each layer.
    types: the layer type of each layer.
    borrowing: number of last layers that use the last earlier layer of their type.

  Returns:
    The mixer of each layer.
  """
  first = len(mixers) - borrowing
  changed = list(mixers)
  for i in range(first, len(mixers)):
    fields = {f.name: getattr(mixers[i], f.name) for f in dataclasses.fields(mixers[i])}
    fields |= {
      'v_norm': None,
      'bias': ''.join(sorted(set(mixers[i].bias) - set('kv'))),
      'lender': types[i],
    }
    changed[i] = Borrowed(**fields)
    lender = max(j for j in range(first) if types[j] == types[i])
    changed[lender] = dataclasses.replace(changed[lender], lends=types[i])
  return changed


def read(c: Fields) -> Model:
  """Return the spec of a published config."""
  c.only(altup_active_idx=0, altup_correct_scale=True)
  # Used in training only, and by earlier code.
  c.skip('altup_coef_clip', 'altup_lr_multiplier', 'query_pre_attn_scalar')
  n, norm = c['num_hidden_layers'], RMSNorm(c.get('rms_norm_eps', 1e-6), scale_first=True)
  types = c.get('layer_types', every_nth_global(n, 5))
  layer_masks, act = masks(c, types, c.get('sliding_window', 512)), c.act('hidden_activation', _ACT)
  ropes = {GLOBAL: c.rope(1e6, kind=GLOBAL, partial=False), LOCAL: local_rope(c)}
  options = {'scale': 1.0, 'qk_norm': norm, 'v_norm': RMSNorm(norm.eps, scale=False)}
  mixers = [
    llama.attention(c, 2, 256, mask=m, relative=ropes[t], **options)
    for m, t in zip(layer_masks, types, strict=True)
  ]
  residual_layout = Laurel(c.get('laurel_rank', 64), norm)
  pairs = zip(_mixers(c, mixers, types), _feed_forwards(c, n), strict=True)
  layers = [
    Block(mixer, Glu(d_ff, act, sparsity=share), norm, residual_layout)
    for mixer, (d_ff, share) in pairs
  ]
  P = c.get('hidden_size_per_layer_input', 256)
  embed = PerLayer(
    power=0.5,
    layer_vocab=c.get('vocab_size_per_layer_input', 262_144),
    layer_dim=P,
    layer_norm=norm,
  )
  residual = AltUp(c.get('altup_num_inputs', 4), norm, act, P)
  spec = llama.decoder(c, layers, norm, True, embed, cap=c.given('final_logit_softcapping', 30.0))
  return dataclasses.replace(spec, residual=residual)


def _mixers(c: Fields, mixers: Sequence[Attention], types: Sequence[str]) -> list[Attention]:
  borrowing = c.get('num_kv_shared_layers', 15)
  first = len(types) - borrowing
  if borrowing and {*types[first:]} - {*types[: max(first, 0)]}:
    raise errors.UserError(
      f'{c.where}: num_kv_shared_layers is {borrowing} of {len(types)} layers, and a layer type of '
      'these layers is missing in the earlier ones. Expected fewer.'
    )
  return lending(mixers, types, borrowing)


def _feed_forwards(c: Fields, n: int) -> list[tuple[int, float]]:
  """Return the width and the sparsity of every feed-forward."""
  width, shares = c['intermediate_size'], c.get('activation_sparsity_pattern')
  widths = width if isinstance(width, list) else [width] * n
  if shares is None:
    shares = [0.95 * (n > 10 and i < 10) for i in range(n)]
  for name, values in (('intermediate_size', widths), ('activation_sparsity_pattern', shares)):
    if not isinstance(values, list) or len(values) != n:
      raise errors.UserError(
        f'{c.where}: {name} is {values!r}. Expected a number for each of {n} layers.'
      )
  return [(d_ff, float(share)) for d_ff, share in zip(widths, shares, strict=True)]


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the published fields of a spec."""
  blocks = layers_of(m)
  a, types = blocks[0].mixer, types_of(m)
  heads, kv_heads, head_dim = a.sizes(m.d_model)
  ropes = {GLOBAL: RoPE(1e6), LOCAL: RoPE()} | {
    t: b.mixer.relative for t, b in zip(types, blocks, strict=True)
  }
  widths = [b.ffn.d_ff for b in blocks]
  sparsity = [b.ffn.sparsity for b in blocks]
  borrowers = [b for b in blocks if b.mixer.lender]
  rope_fields = {kind: rope_parameters(rope) for kind, rope in ropes.items()}
  return {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'num_hidden_layers': len(blocks),
    'num_attention_heads': heads,
    'num_key_value_heads': kv_heads, 'head_dim': head_dim, 'rms_norm_eps': m.norm.eps,
    'attention_bias': bool(a.bias),
    'attention_dropout': a.dropout, 'hidden_activation': name_of(blocks[0].ffn.act, _ACT),
    'intermediate_size': widths,
    'laurel_rank': blocks[0].residual_layout.rank, 'layer_types': types,
    'activation_sparsity_pattern': sparsity,
    'sliding_window': window_of(m) or 512,
    'num_kv_shared_layers': len(borrowers),
    'altup_num_inputs': m.residual.streams,
    'hidden_size_per_layer_input': m.residual.inputs,
    'vocab_size_per_layer_input': m.embed.layer_vocab or m.vocab,
    'final_logit_softcapping': m.lm and m.lm.cap, 'max_position_embeddings': 32_768,
    'rope_parameters': rope_fields,
  }  # fmt: skip


MODELS = {
  'gemma3n-e2b': Entry(gemma3n(30, 8192, 10), 4_435_182_688, '4.4B', CARD),
  'gemma3n-e4b': Entry(gemma3n(35, 16_384, 15), 6_835_235_568, '6.8B', CARD),
}
