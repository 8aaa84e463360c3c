"""ConvBERT: BERT with span-based dynamic convolution in the place of half of its heads (2020)."""

import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Model
from tfm.parts.ffn.grouped_mlp import GroupedMlp
from tfm.parts.mixer.span_conv import SpanConv
from tfm.zoo import bert, electra
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields

PAPER = 'ConvBERT: Improving BERT with Span-based Dynamic Convolution, arXiv:2008.02496'


def convbert(layers: int, d: int, heads: int, width: int, ratio: int = 2, groups: int = 1) -> Model:
  """BERT with embeddings of `width`; heads / ratio heads of attention stand beside as many of
  convolution.
  """
  return convolved(electra.electra(layers, d, heads, width), ratio, 9, groups)


def convolved(spec: Any, ratio: int, size: int, groups: int) -> Model:
  """Return a BERT with mixed attention, whose heads together are as wide as the model.

  Args:
    spec: the BERT.
    ratio: what its number of heads is divided by.
    size: how many tokens a convolution reads.
    groups: the number of groups in the projections of the feed-forward.
  """
  (block,) = spec.segments[0].pattern
  heads = max(block.mixer.heads // ratio, 1)
  fields = {**vars(block.mixer), 'heads': heads, 'head_dim': spec.d_model // heads // 2}
  block = dataclasses.replace(block, mixer=SpanConv(**fields, span=size))
  if groups > 1:
    block = dataclasses.replace(
      block, ffn=GroupedMlp(block.ffn.d_ff, block.ffn.act, groups, groups)
    )
  return dataclasses.replace(
    spec, segments=(dataclasses.replace(spec.segments[0], pattern=(block,)),)
  )


def read(c: Fields) -> Model:
  """Return the spec of a published config, with a masked-LM head."""
  c.skip(
    'summary_type', 'summary_use_proj', 'summary_activation', 'summary_last_dropout'
  )  # of a choice's class
  heads, ratio, d = c['num_attention_heads'], c.get('head_ratio', 2), c['hidden_size']
  if d % (2 * max(heads // ratio, 1)):
    raise errors.UserError(
      f'{c.where}: head_ratio is {ratio}, num_attention_heads {heads} and hidden_size {d}. '
      f'Expected a multiple of '
      f'{2 * max(heads // ratio, 1)} as hidden_size, of which attention and convolution are half '
      f'each.'
    )
  spec = electra.narrow(bert.read(c), c.get('embedding_size', 768))
  return convolved(spec, ratio, c.get('conv_kernel_size', 9), c.get('num_groups', 1))


def write(m: Any) -> dict[str, Any]:
  """Return the published fields of a spec."""
  block = m.segments[0].pattern[0]
  return {
    **electra.write(m), 'num_attention_heads': 2 * block.mixer.heads, 'head_ratio': 2,
    'conv_kernel_size': block.mixer.span, 'num_groups': getattr(block.ffn, 'up_groups', 1),
  }  # fmt: skip


MODELS = {
  'convbert-medium-small': Entry(convbert(12, 384, 8, 128, groups=2), 17_555_946, '17M', PAPER),
  'convbert-base': Entry(convbert(12, 768, 12, 768), 106_303_170, '106M', PAPER),
}
