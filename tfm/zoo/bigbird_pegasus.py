"""BigBird-Pegasus: PEGASUS with block-sparse attention in the encoder (Zaheer et al., 2020)."""

from collections.abc import Callable
import dataclasses
from typing import Any

from tfm.model.spec import Model
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.embed.tokens import Tokens
from tfm.parts.mixer.bigbird import BigBirdAttention
from tfm.parts.residual_layout.pre import Pre
from tfm.zoo.bart import encoder_decoder_blocks, read_stacks, stacks, write_stacks
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel, FamilyTower
from tfm.zoo.fields import Fields
from tfm.zoo.layers import layers_of, segments

PAPER = 'Big Bird: Transformers for Longer Sequences, arXiv:2007.14062'


def bigbird_pegasus(layers: int, d: int, heads: int) -> Model:
  """Return a PEGASUS with learned positions and block-sparse attention in the encoder.

  Args:
    layers: number of layers of the encoder and of the decoder.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec, with 4,096 positions, tanh GELU, no biases in attention, and blocks of 64 tokens.
  """
  blocks = encoder_decoder_blocks(heads, 4 * d, GeluTanh(), Pre())
  spec = stacks(96_103, d, blocks, (layers, layers), Learned(4096), Tokens(power=0.5, dropout=0.1))
  return sparse(without_biases(spec), 64, 3)


def without_biases(spec: Model) -> Model:
  """Return an encoder-decoder without biases in attention."""
  plain = lambda part: None if part is None else dataclasses.replace(part, bias='')
  change = lambda block: dataclasses.replace(
    block, mixer=plain(block.mixer), cross=plain(block.cross)
  )
  return _each(spec.with_towers(encoder=_each(spec.encoder, change)), change)


def sparse(spec: Model, block: int, random: int) -> Model:
  """Return an encoder-decoder with block-sparse attention in the encoder.

  Args:
    spec: an encoder-decoder with full attention.
    block: number of tokens of a block.
    random: number of random blocks.

  Returns:
    The changed spec.
  """
  mixer = lambda attention: BigBirdAttention(**vars(attention), block=block, random=random)
  change = lambda layer: dataclasses.replace(layer, mixer=mixer(layer.mixer))
  return spec.with_towers(encoder=_each(spec.encoder, change))


def _each(stack: FamilyTower, change: Callable[[Any], Any]) -> Any:
  return dataclasses.replace(
    stack, segments=segments([change(block) for block in layers_of(stack)])
  )


def read(c: Fields) -> Model:
  """Return the spec of a published config."""
  c.only(tie_word_embeddings=True, is_decoder=False)
  positions = Learned(c.get('max_position_embeddings', 4096))
  spec: Any = read_stacks(c, positions, Pre(), act='gelu_new', scaled=True)
  spec = spec if c.get('use_bias', False) else without_biases(spec)
  block, random = c.get('block_size', 64), c.get('num_random_blocks', 3)
  kinds = {'original_full': lambda m: m, 'block_sparse': lambda m: sparse(m, block, random)}
  return c.choice('attention_type', kinds, 'block_sparse')(spec)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the published fields of a spec."""
  mixer = m.encoder.segments[0].pattern[0].mixer
  blocks: dict[str, Any] = {'attention_type': 'original_full'}
  if isinstance(mixer, BigBirdAttention):
    blocks = {
      'attention_type': 'block_sparse',
      'block_size': mixer.block,
      'num_random_blocks': mixer.random,
    }
  return {**write_stacks(m), 'use_bias': bool(mixer.bias), **blocks}


MODELS = {'bigbird-pegasus-large': Entry(bigbird_pegasus(16, 1024, 16), 576_988_007, '577M', PAPER)}
