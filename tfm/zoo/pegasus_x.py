"""PEGASUS-X: PEGASUS with an encoder for long inputs (Phang et al., 2022).

The encoder attends within staggered blocks and to global tokens.
"""

import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Model, depth
from tfm.parts.absolute.sinusoidal import Sinusoidal
from tfm.parts.act.relu import Relu
from tfm.parts.embed.globals import Globals
from tfm.parts.embed.tokens import Tokens
from tfm.parts.head.lm import Lm
from tfm.parts.mixer.global_local import GlobalLocal
from tfm.parts.residual_layout.pre import Pre
from tfm.zoo.bart import NORM, encoder_decoder_blocks, read_stacks, stacks, write_stacks
from tfm.zoo.bigbird_pegasus import without_biases
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.layers import layers_of, segments

PAPER = (
  'Investigating Efficiently Extending Transformers for Long Input Summarization, arXiv:2208.04347'
)


def pegasus_x(layers: int, d: int, heads: int, count: int = 128) -> Model:
  """Return a PEGASUS with local and global attention in the encoder.

  Args:
    layers: number of layers of the encoder and of the decoder.
    d: width of the residual stream.
    heads: number of attention heads.
    count: number of global tokens.

  Returns:
    The spec, without biases in attention and with staggered blocks of 512 tokens.
  """
  blocks = encoder_decoder_blocks(heads, 4 * d, Relu(), Pre())
  embed = Tokens(power=0.5, dropout=0.1)
  spec = stacks(96_103, d, blocks, (layers, layers), Sinusoidal('t2t', max_len=16_384), embed, Lm())
  return in_blocks(without_biases(spec), count, 512, True)


def in_blocks(spec: Model, count: int, block: int, staggered: bool) -> Model:
  """Return an encoder-decoder with local and global attention in the encoder.

  Args:
    spec: an encoder-decoder with full attention.
    count: number of global tokens.
    block: number of tokens of a block.
    staggered: whether the blocks of every other layer begin half a block earlier.

  Returns:
    The changed spec.
  """
  layers = []
  for i, layer in enumerate(layers_of(spec.encoder)):
    shift = block // 2 if staggered and i % 2 else 0
    mixer = GlobalLocal(**vars(layer.mixer), block=block, shift=shift, input_norm=NORM)
    layers.append(dataclasses.replace(layer, mixer=mixer, residual_layout=Pre(('mixer',))))
  fields = {**vars(spec.embed), 'vocab': None}
  encoder = dataclasses.replace(
    spec.encoder, embed=Globals(**fields, count=count), segments=segments(layers)
  )
  return spec.with_towers(encoder=encoder)


def read(c: Fields) -> Model:
  """Return the spec of a published config."""
  c.only(tie_word_embeddings=True)
  block, staggered = c.get('block_size', 512), c.get('stagger_local_blocks', True)
  if staggered and block % 2:
    raise errors.UserError(
      f'{c.where}: block_size is {block}, and stagger_local_blocks is true. '
      'Expected an even block_size.'
    )
  positions = Sinusoidal('t2t', max_len=c.get('max_position_embeddings', 16_384))
  spec = read_stacks(c, positions, Pre(), scaled=True, head=Lm())
  return in_blocks(without_biases(spec), c.get('num_global_tokens', 32), block, staggered)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the published fields of a spec."""
  mixers = [layer.mixer for layer in layers_of(m.encoder)]
  return {
    **write_stacks(m), 'num_global_tokens': m.encoder.embed.count, 'block_size': mixers[0].block,
    'stagger_local_blocks': depth(m.encoder) > 1 and mixers[1].shift > 0,
  }  # fmt: skip


MODELS = {'pegasus-x-large': Entry(pegasus_x(16, 1024, 16), 568_667_136, '569M', PAPER)}
