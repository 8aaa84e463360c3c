"""The detokenizer emits whole characters and withholds stop texts."""

import pytest

from tfm.data.tokenizer import ByteVocabulary
from tfm.generate.detokenizer import Detokenizer


def detokenize(text, stops=(), end=True):
  detokenizer = Detokenizer(ByteVocabulary(), stops)
  pieces = [detokenizer.push(i) for i in text.encode()]
  if end:
    pieces.append(detokenizer.flush())
  return pieces, detokenizer


def test_text_is_emitted_in_whole_characters():
  pieces, detokenizer = detokenize('é!')
  assert pieces == ['', 'é', '!', '']
  assert detokenizer.text == 'é!'


def test_possible_stop_text_is_withheld():
  pieces, detokenizer = detokenize('a\n\nb', ['\n\nc'])
  assert pieces == ['a', '', '', '\n\nb', '']
  assert detokenizer.text == 'a\n\nb'


def test_flush_returns_withheld_text():
  pieces, detokenizer = detokenize('a\n', ['\n\n'])
  assert pieces == ['a', '', '\n']
  assert detokenizer.text == 'a\n'
  assert detokenizer.done


@pytest.mark.parametrize('stops', [['END'], ['ENDS', 'END'], ['', 'END']])
def test_text_ends_before_the_first_stop_text(stops):
  _, detokenizer = detokenize('so END it', stops)
  assert detokenizer.text == 'so '
  assert detokenizer.done


def test_finished_detokenizer_emits_nothing():
  _, detokenizer = detokenize('a', end=False)
  assert detokenizer.push(-1) == ''
  detokenizer.flush()
  assert detokenizer.push(ord('b')) == ''
  assert detokenizer.text == 'a'
