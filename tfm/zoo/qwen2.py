"""Qwen2 and Qwen2.5 (2024): Llama's block with biases of queries, keys and values."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.layers import GLOBAL, LOCAL, choose, masks, types_of, window_of

PAPER = 'Qwen2 Technical Report, arXiv:2407.10671'
PAPER_2_5 = 'Qwen2.5 Technical Report, arXiv:2412.15115'


def qwen2(
  depth: int, d: int, heads: int, kv_heads: int, d_ff: int, vocab: int = 152_064, tied: bool = False
) -> Model:
  """Return a pre-norm decoder with RMSNorm, RoPE, SwiGLU, grouped-query attention and q/k/v biases.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.
    vocab: size of the vocabulary.
    tied: whether the head shares the token table.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-6)
  block = Block(Attention(heads, kv_heads, d // heads, RoPE(1e6), bias='qkv'), Glu(d_ff), norm)
  return Model(
    Tokens(vocab),
    d,
    (Segment((block,), depth),),
    heads={'lm': Lm(tied=tied)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm, ffn = RMSNorm(c.get('rms_norm_eps', 1e-6)), llama.glu(c)
  layers = [
    Block(llama.attention(c, 32, bias='qkv', mask=mask), ffn, norm) for mask in layer_masks(c)
  ]
  return llama.decoder(c, layers, norm)


def layer_masks(c: Fields) -> list[Mask]:
  """Return the attention mask of every layer.

  With `use_sliding_window`, layers from `max_window_layers` on are local.
  """
  window = c.given('sliding_window', 4096) if c.get('use_sliding_window') else None
  first = c.get('max_window_layers', 28)
  c.skip('sliding_window')
  local = [window is not None and i >= first for i in range(c['num_hidden_layers'])]
  return masks(c, choose(local, LOCAL, GLOBAL), window)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return {**llama.sizes(m), **mask_fields(m)}


def mask_fields(m: FamilyModel) -> dict[str, Any]:
  """Return the config fields of a spec's attention masks."""
  window = window_of(m)
  return {
    'use_sliding_window': window is not None,
    'sliding_window': window,
    'layer_types': types_of(m),
  }


MODELS = {
  'qwen2-0.5b': Entry(qwen2(24, 896, 14, 2, 4864, 151_936, True), 494_032_768, '0.49B', PAPER),
  'qwen2.5-1.5b': Entry(
    qwen2(28, 1536, 12, 2, 8960, 151_936, True), 1_543_714_304, '1.54B', PAPER_2_5
  ),
  'qwen2.5-7b': Entry(qwen2(28, 3584, 28, 4, 18_944), 7_615_616_512, '7.61B', PAPER_2_5),
  'qwen2.5-72b': Entry(qwen2(80, 8192, 64, 8, 29_568), 72_706_203_648, '72.7B', PAPER_2_5),
}
