"""Blenderbot Small (2020): a post-norm BART that normalises token embeddings before positions."""

import dataclasses
from typing import Any

from tfm.model.spec import Model
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.gelu import Gelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.residual_layout.post import Post
from tfm.zoo.bart import NORM, encoder_decoder_blocks, read_stacks, stacks
from tfm.zoo.blenderbot import PAPER
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields


def blenderbot_small(layers: int, d: int, heads: int, vocab: int) -> Model:
  """Return a post-norm encoder-decoder with embeddings times sqrt(d) and positions from row 0.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.
    vocab: size of the vocabulary.

  Returns:
    The spec of the model.
  """
  blocks = encoder_decoder_blocks(heads, 4 * d, Gelu(), Post())
  embed = Tokens(power=0.5, norm=NORM, dropout=0.1)
  return with_early_norm(stacks(vocab, d, blocks, (layers, layers), Learned(512), embed))


def with_early_norm(spec: Any) -> Model:
  """Return an encoder-decoder that normalises decoder embeddings before adding positions."""
  return dataclasses.replace(spec, embed=dataclasses.replace(spec.embed, early_norm=True))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(tie_word_embeddings=True, layernorm_variant='xlm')
  c.skip('do_blenderbot_90_layernorm', 'variant', 'extra_layer_norm')
  return with_early_norm(
    read_stacks(c, Learned(c.get('max_position_embeddings', 512)), Post(), NORM)
  )


MODELS = {
  'blenderbot-small-90m': Entry(blenderbot_small(8, 512, 16, 54_944), 87_563_936, '90M', PAPER)
}
