"""Llama 2, 3, 3.1 and 3.2 (2023, 2024). Next: `model/spec.py`, which says what a model is made of."""

from typing import Any

from tfm.model.spec import Block, Head, Model, Segment, depth
from tfm.parts.ffn.glu import Glu
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.scaling.llama3 import Llama3
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields, name_of, rope_parameters

PAPER_2 = 'Llama 2: Open Foundation and Fine-Tuned Chat Models, arXiv:2307.09288'
PAPER_3 = 'The Llama 3 Herd of Models, arXiv:2407.21783'
PAPER_3_2 = 'Llama 3.2, model card, Meta 2024'


def llama(
  depth: int, d: int, heads: int, kv_heads: int, d_ff: int, vocab: int, rope: RoPE, tied: bool = False
) -> Model:
  """Pre-norm by root mean square, rotary positions, SwiGLU, grouped keys, no biases."""
  norm = RMSNorm(1e-5)
  block = Block(Attention(heads, kv_heads, d // heads, rope), Glu(d_ff), norm)
  return Model(vocab, d, (Segment((block,), depth),), norm=norm, head=Head(tied=tied), init=Normal(depth_scaled=False))


def read(c: Fields) -> Model:
  """The spec of a published config."""
  d, heads = c['hidden_size'], c['num_attention_heads']
  c.only(pretraining_tp=1)
  c.skip('max_position_embeddings')
  norm = RMSNorm(c.get('rms_norm_eps', 1e-6))
  attention = Attention(
    heads, c.get('num_key_value_heads', heads), c.get('head_dim', d // heads), c.rope(),
    bias='qkvo' if c.get('attention_bias') else '', dropout=c.get('attention_dropout', 0.0),
  )  # fmt: skip
  ffn = Glu(c['intermediate_size'], c.act('hidden_act', 'silu'), bias=c.get('mlp_bias', False))
  segment = Segment((Block(attention, ffn, norm),), c['num_hidden_layers'])
  head = Head(tied=c.get('tie_word_embeddings', False))
  return Model(c['vocab_size'], d, (segment,), norm=norm, head=head, init=Normal(depth_scaled=False))


def write(m: Any) -> dict[str, Any]:
  """The published fields of a spec."""
  block = m.segments[0].pattern[0]
  a, ffn = block.mixer, block.ffn
  heads, kv_heads, head_dim = a.sizes(m.d_model)
  return {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'intermediate_size': ffn.d_ff, 'num_hidden_layers': depth(m),
    'num_attention_heads': heads, 'num_key_value_heads': kv_heads, 'head_dim': head_dim,
    'rope_parameters': rope_parameters(a.relative), 'rms_norm_eps': block.norm.eps, 'hidden_act': name_of(ffn.act),
    'attention_bias': bool(a.bias), 'attention_dropout': a.dropout, 'mlp_bias': ffn.bias,
    'max_position_embeddings': 131_072,
  }  # fmt: skip


_V2, _V3 = RoPE(1e4), RoPE(5e5)
_V3_1, _V3_2 = RoPE(5e5, scaling=Llama3(8.0)), RoPE(5e5, scaling=Llama3(32.0))

MODELS = {
  'llama2-7b': Entry(llama(32, 4096, 32, 32, 11_008, 32_000, _V2), 6_738_415_616, '7B', PAPER_2),
  'llama2-13b': Entry(llama(40, 5120, 40, 40, 13_824, 32_000, _V2), 13_015_864_320, '13B', PAPER_2),
  'llama2-70b': Entry(llama(80, 8192, 64, 8, 28_672, 32_000, _V2), 68_976_648_192, '70B', PAPER_2),
  'llama3-8b': Entry(llama(32, 4096, 32, 8, 14_336, 128_256, _V3), 8_030_261_248, '8B', PAPER_3),
  'llama3-70b': Entry(llama(80, 8192, 64, 8, 28_672, 128_256, _V3), 70_553_706_496, '70B', PAPER_3),
  'llama3.1-405b': Entry(llama(126, 16_384, 128, 8, 53_248, 128_256, _V3_1), 405_853_388_800, '405B', PAPER_3),
  'llama3.2-1b': Entry(llama(16, 2048, 32, 8, 8192, 128_256, _V3_2, True), 1_235_814_400, '1.23B', PAPER_3_2),
  'llama3.2-3b': Entry(llama(28, 3072, 24, 8, 8192, 128_256, _V3_2, True), 3_212_749_824, '3.21B', PAPER_3_2),
}
