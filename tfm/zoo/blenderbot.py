"""Blenderbot (Roller et al., 2020): a pre-norm BART with a shallow encoder and a deep decoder."""

from tfm.model.spec import Model
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.gelu import Gelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.residual_layout.pre import Pre
from tfm.zoo.bart import encoder_decoder_blocks, read_stacks, stacks
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields

PAPER = 'Recipes for building an open-domain chatbot, arXiv:2004.13637'


def blenderbot(depths: tuple[int, int], d: int) -> Model:
  """Return a pre-norm encoder-decoder with a final norm in each stack.

  Args:
    depths: number of layers of the encoder and of the decoder.
    d: width of the residual stream.

  Returns:
    The spec of the model.
  """
  blocks = encoder_decoder_blocks(32, 4 * d, Gelu(), Pre())
  return stacks(8008, d, blocks, depths, Learned(128), Tokens(power=0.5, dropout=0.1))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(tie_word_embeddings=True, layernorm_variant='prelayernorm')
  c.skip('encoder_no_repeat_ngram_size', 'do_blenderbot_90_layernorm')
  return read_stacks(c, Learned(c.get('max_position_embeddings', 128)), Pre())


MODELS = {'blenderbot-3b': Entry(blenderbot((2, 24), 2560), 2_696_276_808, '2.7B', PAPER)}
