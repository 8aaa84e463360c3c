"""A row ends with the token that completes a stop text, however the text lies across its tokens."""

import functools

import jax
import numpy as np
import pytest

from tests.generate.models import MODELS, weights
from tfm.generate import Detokenizer, decode
from tfm.parts.context import Run

SPEC, NEW = MODELS['rope_gqa'], 30
PROMPTS = ['ab', 'aaaab', 'bba']
generate = functools.partial(
  decode.generate, SPEC, weights(SPEC), run=Run(), max_new_tokens=NEW, key=jax.random.key(3)
)
stream = functools.partial(
  decode.stream, SPEC, weights(SPEC), run=Run(), max_new_tokens=NEW, key=jax.random.key(3)
)


class Pieces:
  """Each id is one to three letters; 60 is the end of text."""

  pieces = [
    a + b
    for a in 'abcd'
    for b in ('', 'a', 'ba', 'cc', 'd', 'dab', 'e', 'f', 'gh', 'i', 'j', 'kl', 'mno')
  ]
  eos, size = 51, 52

  def encode(self, text):
    return [self.pieces.index(c) for c in text]

  def decode(self, ids):
    return ''.join(self.pieces[i] for i in ids if i != self.eos)


TOK = Pieces()


@pytest.fixture(scope='module')
def free():
  return generate(PROMPTS, tokenizer=TOK, eos=())


def spanning(text, ids):
  """A piece of the text that begins within one token and ends within another, away from both ends."""
  at = len(TOK.decode(ids[:10]))
  return text[at - 1 : at + 2]


def test_text_is_cut_before_the_first_stop_that_spans_tokens(free):
  ids = generate([TOK.encode(p) for p in PROMPTS], tokenizer=TOK, eos=())
  stop = spanning(free[0], ids[0])
  cut = generate(PROMPTS, tokenizer=TOK, eos=(), stop=stop)
  assert cut == [text.partition(stop)[0] for text in free]
  assert cut[0] != free[0]
  # Ids go on to the token that completes the text, and no further.
  ended = generate(
    [TOK.encode(p) for p in PROMPTS], tokenizer=TOK, eos=(), stop=(stop, 'never said')
  )
  for row, whole in zip(ended, ids, strict=True):
    assert whole[: len(row)] == row
    assert (stop in TOK.decode(row)) == (stop in TOK.decode(whole))
    assert stop not in TOK.decode(row[:-1])


@pytest.mark.parametrize('chunk', [1, 5])
def test_a_stream_ends_rows_there_too_and_shows_no_part_of_the_stop(free, chunk):
  ids = generate([TOK.encode(p) for p in PROMPTS], tokenizer=TOK, eos=())
  stop = spanning(free[0], ids[0])
  expected = generate([TOK.encode(p) for p in PROMPTS], tokenizer=TOK, eos=(), stop=stop)
  steps = np.stack(list(stream(PROMPTS, tokenizer=TOK, eos=(), stop=stop, chunk=chunk)), axis=1)
  assert [[t for t in row if t >= 0] for row in steps.tolist()] == expected
  detokenizer, shown = Detokenizer(TOK, [stop]), ''
  for token in steps[0]:
    shown += detokenizer.push(int(token))
    assert free[0].partition(stop)[0].startswith(shown)
  assert shown + detokenizer.flush() == free[0].partition(stop)[0]


def test_decoding_ends_once_every_row_has_its_stop(free):
  stop = free[0][3:6]
  assert len(list(stream(PROMPTS[:1], tokenizer=TOK, eos=(), stop=stop))) < 10
