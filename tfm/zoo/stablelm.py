"""StableLM 3B (2023) and StableLM 2 (2024): Llama's block with LayerNorm and partial RoPE."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual_layout.parallel import Parallel
from tfm.parts.residual_layout.pre import Pre
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.gpt_neox import all_rope_parameters
from tfm.zoo.phi import sizes

PAPER = 'StableLM 3B 4E1T, Stability AI 2023'
PAPER_2 = 'Stable LM 2 1.6B Technical Report, arXiv:2402.17834'
PAPER_12B = 'Stable LM 2 12B, Stability AI 2024'

#: Residual layout by `use_parallel_residual`.
LAYOUTS = {True: Parallel(), False: Pre()}


def stablelm(
  depth: int, d: int, heads: int, kv_heads: int, d_ff: int, vocab: int, **attention: Any
) -> Model:
  """Return an untied decoder with LayerNorm, SwiGLU and RoPE on a quarter of each head.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.
    vocab: size of the vocabulary.
    **attention: further fields of the attention. With `qk_norm`, the branches are parallel, as in
      StableLM 2 12B.

  Returns:
    The spec of the model.
  """
  norm = LayerNorm(1e-5)
  # Only 12B has query/key norms, and only 12B has parallel branches.
  residual_layout = LAYOUTS[attention.get('qk_norm') is not None]
  block = Block(
    Attention(heads, kv_heads, d // heads, RoPE(fraction=0.25), **attention),
    Glu(d_ff),
    norm,
    residual_layout,
  )
  return Model(
    Tokens(vocab),
    d,
    (Segment((block,), depth),),
    heads={'lm': Lm(False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm = LayerNorm(c.get('layer_norm_eps', 1e-5))
  qk_norm: dict[str, Any] = {}
  if c.get('qk_layernorm'):
    qk_norm = {'qk_norm': LayerNorm(norm.eps, bias=False), 'qk_norm_over': 'each'}
  bias = 'qkv' if c.get('use_qkv_bias') else ''
  attention = llama.attention(c, 32, relative=c.rope(fraction=0.25), bias=bias, **qk_norm)
  residual_layout = LAYOUTS[c.get('use_parallel_residual', False)]
  dropout = c.get('hidden_dropout', 0.0)
  block = Block(attention, llama.glu(c, bias=False), norm, residual_layout, dropout=dropout)
  return llama.decoder(c, [block] * c['num_hidden_layers'], norm, embed=Tokens())


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  a = block.mixer
  fields = sizes(m)
  del fields['head_dim']
  return {
    **fields, 'rope_parameters': all_rope_parameters(a.relative), 'use_qkv_bias': bool(a.bias),
    'qk_layernorm': a.qk_norm is not None,
    'use_parallel_residual': block.residual_layout == LAYOUTS[True],
    'hidden_dropout': block.dropout,
  }  # fmt: skip


_EACH = {'qk_norm': LayerNorm(1e-5, bias=False), 'qk_norm_over': 'each'}
MODELS = {
  'stablelm-3b': Entry(stablelm(32, 2560, 32, 32, 6912, 50_304), 2_795_443_200, '2.8B', PAPER),
  'stablelm2-1.6b': Entry(
    stablelm(24, 2048, 32, 32, 5632, 100_352, bias='qkv'), 1_644_515_328, '1.6B', PAPER_2
  ),
  'stablelm2-12b': Entry(
    stablelm(40, 5120, 32, 8, 13_824, 100_352, **_EACH), 12_143_185_920, '12.1B', PAPER_12B
  ),
}
