"""New text continues the prompt: its first space is kept, and no piece changes later."""

import functools

import hypothesis
from hypothesis import strategies as st
import pytest

from tests.data.tokenizer.folders import SLOW, WHOLE
from tests.data.tokenizer.strings import STRINGS
from tfm.data.tokenizer import StreamDecoder
from tfm.data.tokenizer.published import read_tokenizer
from tfm.generate import Detokenizer

NAMES = ('bert_clean', 'ctrl', 'gpt2', 'llama', 'llama2', 'marian', 'm2m_100', 't5', 'xlm_roberta')


@pytest.fixture(scope='module')
def read(tmp_path_factory):
  """Return a function from a name to its vocabulary, made once."""

  @functools.cache
  def make(name):
    folder = tmp_path_factory.mktemp(name)
    (SLOW | WHOLE)[name](folder)
    return read_tokenizer(folder)

  return make


def shown(vocabulary, before, new):
  stream = StreamDecoder(vocabulary, before)
  return [*map(stream.push, new), stream.flush()]


def rest(vocabulary, before, new):
  """Return the text that the new ids add to the text before."""
  whole, text = vocabulary.decode([*before, *new]), vocabulary.decode(before)
  return whole[len(text) :] if whole.startswith(text) and not text.endswith('\ufffd') else None


@pytest.mark.parametrize('name', NAMES)
def test_space_before_the_first_new_word_is_kept(read, name):
  ours = read(name)
  before = ours.encode('the cat').tolist()
  new = ours.encode('the cat sat on the mat').tolist()[len(before) :]
  assert ours.decode(before) == 'the cat'
  assert ''.join(shown(ours, before, new)) == ' sat on the mat'
  detokenizer = Detokenizer(ours, prompt_ids=before)
  assert ''.join([*map(detokenizer.push, new), detokenizer.flush()]) == ' sat on the mat'


@pytest.mark.parametrize('name', NAMES)
def test_pieces_join_to_the_text_of_all_ids(read, name):
  ours = read(name)
  for text in STRINGS:
    ids = ours.encode(text).tolist()
    for at in {0, len(ids) // 2, len(ids)}:
      if (expected := rest(ours, ids[:at], ids[at:])) is not None:
        assert ''.join(shown(ours, ids[:at], ids[at:])) == expected, (text, at)


@pytest.mark.parametrize('name', ['gpt2', 'llama', 't5'])
def test_pieces_of_any_text_join_to_it(read, name):
  ours = read(name)

  @hypothesis.given(st.text(max_size=30), st.integers(0, 30))
  @hypothesis.settings(max_examples=100, deadline=None, database=None)
  def join(text, at):
    ids = ours.encode(text).tolist()
    expected = rest(ours, ids[:at], ids[at:])
    assert expected is None or ''.join(shown(ours, ids[:at], ids[at:])) == expected

  join()


@pytest.mark.parametrize('name', ['gpt2', 'llama'])
def test_incomplete_characters_are_withheld(read, name):
  ours = read(name)
  before, new = ours.encode('a').tolist(), ours.encode('a🙂日').tolist()[len(ours.encode('a')) :]
  pieces = shown(ours, before, new)
  assert ''.join(pieces) == '🙂日'
  assert '\ufffd' not in ''.join(pieces)
  assert pieces.count('') >= 3


def test_special_token_between_words_keeps_their_space(read):
  ours = read('llama')
  before, new = [ours.bos, *ours.encode('the cat').tolist(), ours.eos], ours.encode('sat').tolist()
  assert ''.join(shown(ours, before, new)) == ' sat'


def test_punctuation_that_may_lose_its_space_is_withheld(read):
  ours = read('bert_clean')
  before, new = ours.encode('it is').tolist(), ours.encode('it is ok , do not').tolist()[2:]
  pieces = shown(ours, before, new)
  assert ''.join(pieces) == ' ok, do not'


def test_unknown_prefix_keeps_the_first_space(read):
  ours = read('llama')
  new = ours.encode('the cat').tolist()
  detokenizer, prefilled = Detokenizer(ours), Detokenizer(ours, prompt_ids=())
  assert ''.join([*map(detokenizer.push, new), detokenizer.flush()]) == ' the cat'
  assert ''.join([*map(prefilled.push, new), prefilled.flush()]) == 'the cat'
