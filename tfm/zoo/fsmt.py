"""WMT19 translation models (Ng et al., Facebook FAIR, 2019): post-norm encoder-decoders."""

from typing import Any

from tfm.model.spec import Model
from tfm.parts.absolute.sinusoidal import Sinusoidal
from tfm.parts.head.lm import Lm
from tfm.parts.residual_layout.post import Post
from tfm.zoo.bart import read_stacks, write_stacks
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = "Facebook FAIR's WMT19 News Translation Task Submission, arXiv:1907.06616"


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`.

  Source, target and head have one token table each, or share one.
  """
  c.skip('langs', 'decoder', 'vocab_size')
  source = c['src_vocab_size']
  target = c['tgt_vocab_size']
  tied = c.get('tie_word_embeddings', False)
  if tied:
    c.only(src_vocab_size=target)
  offset = c.get('pad_token_id', 1) + 1
  positions = Sinusoidal('t2t', offset=offset, max_len=c.get('max_position_embeddings', 1024))
  fields = {'vocab': target, 'source': None if tied else source, 'head': Lm(tied=tied)}
  return read_stacks(c, positions, Post(), act='relu', scaled=True, **fields)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  fields = write_stacks(m)
  target = fields.pop('vocab_size')
  return {
    **fields, 'src_vocab_size': m.tower('encoder').vocab, 'tgt_vocab_size': target,
    'langs': ['en', 'de'],
    'pad_token_id': m.absolute.offset - 1, 'tie_word_embeddings': m.encoder.shares,
  }  # fmt: skip
