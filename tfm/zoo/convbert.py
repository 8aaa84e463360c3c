"""ConvBERT: BERT with dynamic convolution in place of half of its heads (Jiang et al., 2020)."""

import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Model
from tfm.parts.ffn.grouped_mlp import GroupedMlp
from tfm.parts.mixer.span_conv import SpanConv
from tfm.zoo import bert, electra
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = 'ConvBERT: Improving BERT with Span-based Dynamic Convolution, arXiv:2008.02496'


def convbert(layers: int, d: int, heads: int, width: int, ratio: int = 2, groups: int = 1) -> Model:
  """Return a BERT with mixed attention: attention heads and dynamic convolution heads.

  Args:
    layers: number of layers.
    d: width of the residual stream.
    heads: number of attention heads of the BERT.
    width: width of the token table.
    ratio: divisor of `heads`; the model has heads / ratio heads of either kind.
    groups: number of groups of the feed-forward projections.

  Returns:
    The spec of the model, with convolutions of 9 tokens.
  """
  return convolved(electra.electra(layers, d, heads, width), ratio, 9, groups)


def convolved(spec: Any, ratio: int, size: int, groups: int) -> Model:
  """Return a BERT with mixed attention.

  Args:
    spec: the BERT.
    ratio: divisor of its number of heads. The width of all heads stays that of the model.
    size: number of tokens of a convolution.
    groups: number of groups of the feed-forward projections.

  Returns:
    The changed spec.
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
  # Fields of the multiple-choice class.
  c.skip('summary_type', 'summary_use_proj', 'summary_activation', 'summary_last_dropout')
  heads, ratio, d = c['num_attention_heads'], c.get('head_ratio', 2), c['hidden_size']
  if d % (total := 2 * max(heads // ratio, 1)):
    raise errors.UserError(
      f'{c.where}: hidden_size is {d}, with num_attention_heads {heads} and head_ratio {ratio}. '
      f'Expected a multiple of {total}, the number of attention and convolution heads.'
    )
  spec = electra.narrow(bert.read(c), c.get('embedding_size', 768))
  return convolved(spec, ratio, c.get('conv_kernel_size', 9), c.get('num_groups', 1))


def write(m: FamilyModel) -> dict[str, Any]:
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
