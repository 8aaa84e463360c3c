"""Marian (Junczys-Dowmunt et al., 2018): the translation models of OPUS-MT (2020)."""

from typing import Any

from tfm.model.spec import Model
from tfm.parts.absolute.sinusoidal import Sinusoidal
from tfm.parts.act.sigmoid import Swish
from tfm.parts.embed.tokens import Tokens
from tfm.parts.head.lm import Lm
from tfm.parts.residual_layout.post import Post
from tfm.zoo.bart import encoder_decoder_blocks, read_stacks, stacks, write_stacks
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = (
  'OPUS-MT: Building open translation services for the World, EAMT 2020; Marian, arXiv:1804.00344'
)


def marian(vocab: int) -> Model:
  """Return a post-norm encoder-decoder with Swish, sinusoids and a bias on the logits."""
  blocks = encoder_decoder_blocks(8, 2048, Swish(), Post())
  positions = Sinusoidal('halves', max_len=512)
  return stacks(vocab, 512, blocks, (6, 6), positions, Tokens(power=0.5, dropout=0.1))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`.

  Source and target share one token table, or have one each.
  """
  one, source = c.get('share_encoder_decoder_embeddings', True), c['vocab_size']
  target = c.get('decoder_vocab_size', source)
  tied = c.get('tie_word_embeddings', True)
  if one:
    c.only(tie_word_embeddings=True, decoder_vocab_size=source)
  positions = Sinusoidal('halves', max_len=c.get('max_position_embeddings', 1024))
  own = {} if one else {'vocab': target, 'source': source}
  return read_stacks(c, positions, Post(), head=Lm(tied=tied, bias=True), **own)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec.

  The padding token is the last of the vocabulary, and starts the decoder.
  """
  one, source = m.encoder.shares, m.tower('encoder').vocab
  last = min(source, m.vocab) - 1
  tables = {
    'vocab_size': source,
    'decoder_vocab_size': m.vocab,
    'share_encoder_decoder_embeddings': one,
  }
  return {**write_stacks(m), **tables, 'pad_token_id': last, 'decoder_start_token_id': last}


MODELS = {'opus-mt-en-de': Entry(marian(58_101), 73_944_309, '74M', PAPER)}
