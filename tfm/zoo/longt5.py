"""LongT5 with local attention (2021)."""

import dataclasses
from typing import Any

from tfm.model.spec import Head, Model
from tfm.parts.mask.window import Window
from tfm.zoo import t5
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields
from tfm.zoo.layers import layers_of, segments

PAPER = 'LongT5: Efficient Text-To-Text Transformer for Long Sequences, arXiv:2112.07916'


def longt5(layers: int, d: int, heads: int, d_ff: int, radius: int = 127) -> Model:
  """T5 v1.1 whose encoder sees `radius` tokens each way."""
  return local(t5.t5_v1_1(layers, d, heads, d_ff), radius)


def local(m: Model, radius: int) -> Model:
  """`m` with an encoder that sees no farther."""
  assert m.encoder is not None
  mask = Window(radius + 1, ahead=True)
  near = lambda b: dataclasses.replace(b, mixer=dataclasses.replace(b.mixer, mask=mask))
  encoder = dataclasses.replace(m.encoder, segments=segments([near(b) for b in layers_of(m.encoder)]))
  return dataclasses.replace(m, encoder=encoder)


def read(c: Fields) -> Model:
  """The spec of a published config; what is untied is not scaled."""
  c.only(encoder_attention_type='local')
  c.skip('global_block_size')
  tied = c.get('tie_word_embeddings', True)
  head = Head(tied, power=-0.5 if c.get('scale_decoder_outputs', tied) else 0.0)
  return local(t5.read_stacks(c, head), c.get('local_radius', 127))


def write(m: Any) -> dict[str, Any]:
  """The published fields of a spec."""
  reader = (m.encoder or m).segments[0].pattern[0]
  return {**t5.write(m), 'local_radius': reader.mixer.mask.size - 1, 'encoder_attention_type': 'local'}


MODELS = {
  'longt5-local-base': Entry(longt5(12, 768, 12, 2048), 247_577_856, '248M', PAPER),
  'longt5-local-large': Entry(longt5(24, 1024, 16, 2816), 783_150_080, '783M', PAPER),
}
