"""A sequence ends with the token that completes a stop text, across token borders."""

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
  """A vocabulary of one to four letters per id; 51 is the end of text."""

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
def unstopped():
  return generate(PROMPTS, tokenizer=TOK, eos=())


def spanning(text, ids):
  """Return a substring of the text that starts and ends inside tokens."""
  at = len(TOK.decode(ids[:10]))
  return text[at - 1 : at + 2]


def test_text_ends_before_a_stop_that_spans_tokens(unstopped):
  ids = generate([TOK.encode(p) for p in PROMPTS], tokenizer=TOK, eos=())
  stop = spanning(unstopped[0], ids[0])
  cut = generate(PROMPTS, tokenizer=TOK, eos=(), stop=stop)
  assert cut == [text.partition(stop)[0] for text in unstopped]
  assert cut[0] != unstopped[0]
  # Ids end with the token that completes the stop text.
  ended = generate(
    [TOK.encode(p) for p in PROMPTS], tokenizer=TOK, eos=(), stop=(stop, 'never generated')
  )
  for row, whole in zip(ended, ids, strict=True):
    assert whole[: len(row)] == row
    assert (stop in TOK.decode(row)) == (stop in TOK.decode(whole))
    assert stop not in TOK.decode(row[:-1])


@pytest.mark.parametrize('chunk', [1, 5])
def test_stream_ends_at_the_stop_text(unstopped, chunk):
  ids = generate([TOK.encode(p) for p in PROMPTS], tokenizer=TOK, eos=())
  stop = spanning(unstopped[0], ids[0])
  expected = generate([TOK.encode(p) for p in PROMPTS], tokenizer=TOK, eos=(), stop=stop)
  steps = np.stack(list(stream(PROMPTS, tokenizer=TOK, eos=(), stop=stop, chunk=chunk)), axis=1)
  assert [row[row >= 0].tolist() for row in steps] == expected
  detokenizer, text = Detokenizer(TOK, [stop]), ''
  for token in steps[0]:
    text += detokenizer.push(int(token))
    assert unstopped[0].partition(stop)[0].startswith(text)
  assert text + detokenizer.flush() == unstopped[0].partition(stop)[0]


def test_decoding_ends_once_every_sequence_has_a_stop(unstopped):
  stop = unstopped[0][3:6]
  assert len(list(stream(PROMPTS[:1], tokenizer=TOK, eos=(), stop=stop))) < 10
