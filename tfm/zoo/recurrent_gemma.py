"""RecurrentGemma (Google, 2024): two RG-LRU layers per local attention layer."""

from typing import Any

import jax.numpy as jnp

from tfm.core import errors
from tfm.model.spec import Block, Model
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.base import Mixer
from tfm.parts.mixer.rglru import RGLRU
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of
from tfm.zoo.layers import as_attention, causal_mask, choose, layers_of, segments, window_of

PAPER = (
  'RecurrentGemma: Moving Past Transformers for Efficient Open Language Models, arXiv:2404.07839'
)
_PATTERN = ('recurrent', 'recurrent', 'attention')


def recurrent_gemma(depth: int, d: int, heads: int, d_ff: int) -> Model:
  """Return a tied pre-norm hybrid with RMSNorm, multi-query attention, biases and capped logits.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  norm = scaled(1e-6)
  attention = Attention(heads, 1, d // heads, RoPE(1e4, fraction=0.5), causal_mask(2048), bias='o')
  mixers: tuple[Mixer, ...] = (RGLRU(d, heads), RGLRU(d, heads), attention)
  layers = [Block(mixers[i % 3], Glu(d_ff, GeluTanh(), bias=True), norm) for i in range(depth)]
  head = Lm(cap=30.0)
  return Model(
    embedding(256_000, d), d, segments(layers), heads={'lm': head}, norm=norm, init=Normal()
  )


def scaled(eps: float) -> RMSNorm:
  """Return the model's RMSNorm, which stores its scale minus one."""
  return RMSNorm(eps, one_plus=True, scale_first=True)


def embedding(vocab: int, d: int) -> Tokens:
  """Return the token table, scaled by sqrt(d) rounded to bfloat16 as in the reference."""
  return Tokens(vocab, float(jnp.bfloat16(d**0.5)))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  d, heads, n = c['hidden_size'], c['num_attention_heads'], c['num_hidden_layers']
  norm, act = scaled(c.get('rms_norm_eps', 1e-6)), c.act('hidden_activation', 'gelu_pytorch_tanh')
  types = [*c.get('block_types', _PATTERN)]
  if unknown := sorted({*types} - {*_PATTERN}):
    raise errors.UserError(
      f'{c.where}: block_types: {errors.unknown("value", unknown[0], ("recurrent", "attention"))}'
    )
  # Duplicates of other sizes, and initialization.
  c.skip(
    'head_dim',
    'layers_block_type',
    '_block_types',
    'w_init_variance_scale',
    'final_w_init_variance_scale',
  )
  mask = causal_mask(c.get('attention_window_size', 2048))
  bias = 'qkvo' if c.get('attention_bias') else 'o'
  attention = llama.attention(
    c, heads, d // heads, relative=c.rope(fraction=0.5), mask=mask, bias=bias
  )
  recurrent = RGLRU(c.get('lru_width', d), heads, c.get('conv1d_width', 4), act)
  ffn = Glu(c.get('intermediate_size', 3 * d) // 2, act, bias=True)
  kinds = {'recurrent': recurrent, 'attention': attention}
  layers = [Block(kinds[types[i % len(types)]], ffn, norm) for i in range(n)]
  cap = float(c.get('logits_soft_cap', 30.0))
  return llama.decoder(c, layers, norm, True, embedding(c['vocab_size'], d), cap=cap)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  attention_only = as_attention(m)
  attention, ffn = attention_only.segments[0].pattern[0].mixer, m.segments[0].pattern[0].ffn
  blocks: list[Any] = layers_of(m)
  recurrent = next(
    (b.mixer for b in blocks if isinstance(b.mixer, RGLRU)), RGLRU(m.d_model, attention.heads)
  )
  fields = llama.sizes(attention_only)
  for name in ('head_dim', 'hidden_act', 'intermediate_size'):
    del fields[name]
  # Without the field, transformers rotates half of each head.
  fields['rope_parameters'] |= {'partial_rotary_factor': attention.relative.fraction}
  cap = m.lm.cap if m.lm else 30.0
  return {
    **fields,
    'block_types': choose((hasattr(b.mixer, 'sizes') for b in blocks), 'attention', 'recurrent'),
    'lru_width': recurrent.width, 'conv1d_width': recurrent.conv,
    'hidden_activation': name_of(ffn.act),
    'intermediate_size': 2 * ffn.d_ff, 'attention_bias': 'q' in attention.bias,
    'attention_window_size': window_of(attention_only),
    'logits_soft_cap': cap,
  }  # fmt: skip


MODELS = {
  'recurrentgemma-2b': Entry(recurrent_gemma(26, 2560, 10, 7680), 2_682_862_080, '2.7B', PAPER),
  'recurrentgemma-9b': Entry(recurrent_gemma(38, 4096, 16, 12_288), 8_579_977_216, '8.6B', PAPER),
}
