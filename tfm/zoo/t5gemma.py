"""T5Gemma (Google, 2025): an encoder-decoder adapted from two Gemma 2 models."""

import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Block, Model, Tower
from tfm.parts.cross.attention import CrossAttention
from tfm.parts.ffn.glu import Glu
from tfm.parts.mask.base import Mask
from tfm.parts.mask.window import Window
from tfm.parts.mixer.attention import Attention
from tfm.zoo import gemma2
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.layers import causal_mask, layers_of, segments

PAPER = (
  'Encoder-Decoder Gemma: Improving the Quality-Efficiency Trade-Off via Adaptation, '
  'arXiv:2504.06225'
)


def joined(
  encoder_spec: Any,
  decoder_spec: Any,
  dropout: float = 0.0,
  attention_dropout: float = 0.0,
) -> Model:
  """Return an encoder-decoder of two decoders.

  The encoder attends in both directions; a window of w tokens becomes w tokens on each side. The
  decoder gets cross-attention like its self-attention in each layer. Each stack has a token table.

  Args:
    encoder_spec: decoder that becomes the encoder.
    decoder_spec: decoder that gets cross-attention.
    dropout: dropout rate of the residual branches.
    attention_dropout: dropout rate of the attention weights.

  Returns:
    The spec of the model.
  """
  encoder_blocks = [_encoder_block(b, dropout, attention_dropout) for b in layers_of(encoder_spec)]
  decoder_blocks = [_decoder_block(b, dropout, attention_dropout) for b in layers_of(decoder_spec)]
  width = None if encoder_spec.d_model == decoder_spec.d_model else encoder_spec.d_model
  embed = dataclasses.replace(decoder_spec.embed, dropout=dropout)
  encoder_embed = dataclasses.replace(embed, vocab=encoder_spec.vocab)
  encoder = Tower(encoder_embed, width, segments(encoder_blocks), norm=encoder_spec.norm)
  return dataclasses.replace(
    decoder_spec, embed=embed, segments=segments(decoder_blocks), towers={'encoder': encoder}
  )


def _parts(b: Block) -> tuple[Attention, Glu]:
  assert isinstance(b.mixer, Attention)
  assert isinstance(b.ffn, Glu)
  return b.mixer, b.ffn


def _encoder_block(b: Block, dropout: float, attention_dropout: float) -> Block:
  a, ffn = _parts(b)
  mask = Mask() if a.lookback is None else Window(a.lookback + 2, ahead=True)
  a = dataclasses.replace(a, mask=mask, dropout=attention_dropout)
  ffn = dataclasses.replace(ffn, dropout=dropout)
  return dataclasses.replace(b, mixer=a, ffn=ffn, dropout=dropout)


def _decoder_block(b: Block, dropout: float, attention_dropout: float) -> Block:
  a, ffn = _parts(b)
  cross = CrossAttention(
    a.heads, a.kv_heads, a.head_dim, bias=a.bias, cap=a.cap, scale=a.scale,
    dropout=attention_dropout,
  )  # fmt: skip
  a = dataclasses.replace(a, dropout=attention_dropout)
  ffn = dataclasses.replace(ffn, dropout=dropout)
  return dataclasses.replace(b, mixer=a, ffn=ffn, dropout=dropout, cross=cross)


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json` with the configs of both stacks."""
  c.skip('vocab_size', 'classifier_dropout_rate')
  encoder_spec, decoder_spec = (
    Fields(c[name], f'{c.where}: {name}') for name in ('encoder', 'decoder')
  )
  decoder_spec.skip('is_decoder')
  specs: list[Model] = []
  for stack in (encoder_spec, decoder_spec):
    stack.skip('dropout_rate', 'cross_attention_hidden_size')
    specs.append(gemma2.read(stack))
    if unread := stack.unread():
      raise errors.UserError(
        f'{stack.where}: {", ".join(unread)}: unknown fields, which may change the outputs. '
        'Expected fields of Gemma 2.'
      )
  m = joined(specs[0], specs[1], c.get('dropout_rate', 0.0), c.get('attention_dropout', 0.0))
  assert m.lm is not None
  return m.with_heads(lm=dataclasses.replace(m.lm, tied=c.get('tie_word_embeddings', True)))


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  causal_blocks = [
    dataclasses.replace(b, mixer=dataclasses.replace(b.mixer, mask=_causal(b)))
    for b in layers_of(m.encoder)
  ]
  source = m.tower('encoder')
  encoder_spec = dataclasses.replace(
    m, embed=source.embed, d_model=source.d_model, segments=segments(causal_blocks), towers={}
  )
  decoder_block = m.segments[0].pattern[0]
  decoder_spec = {**gemma2.write(m), 'cross_attention_hidden_size': encoder_spec.d_model}
  return {
    'encoder': gemma2.write(encoder_spec), 'decoder': decoder_spec, 'vocab_size': m.vocab,
    'is_encoder_decoder': True,
    'dropout_rate': decoder_block.dropout, 'attention_dropout': decoder_block.mixer.dropout,
    'tie_word_embeddings': m.lm is None or m.lm.tied,
  }  # fmt: skip


def _causal(b: Any) -> Mask:
  """Return the causal mask that a config describes for an encoder layer."""
  return causal_mask(b.mixer.lookback)


_2B = gemma2.gemma2(26, 2304, 8, 4, 9216)
_9B = gemma2.gemma2(42, 3584, 16, 8, 14_336)
MODELS = {
  't5gemma-2b-2b': Entry(joined(_2B, _2B), 5_596_853_760, '5.6B', PAPER),
  't5gemma-9b-2b': Entry(joined(_9B, _2B), 12_292_375_296, '12.3B', PAPER),
}
