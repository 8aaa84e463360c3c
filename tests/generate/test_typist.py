import pytest

from tfm.data.tokenizer import ByteVocabulary
from tfm.generate.detokenizer import Detokenizer


def typed(text, stops=(), end=True):
  detokenizer = Detokenizer(ByteVocabulary(), stops)
  shown = [detokenizer.push(i) for i in text.encode()] + ([detokenizer.flush()] if end else [])
  return shown, detokenizer


def test_text_is_shown_in_whole_characters():
  shown, detokenizer = typed('é!')
  assert shown == ['', 'é', '!', '']
  assert detokenizer.text == 'é!'


def test_what_might_become_a_stop_text_is_held_back_until_it_does_not():
  shown, detokenizer = typed('a\n\nb', ['\n\nc'])
  assert shown == ['a', '', '', '\n\nb', '']
  assert detokenizer.text == 'a\n\nb'


def test_the_end_lets_go_of_what_was_held_back():
  shown, detokenizer = typed('a\n', ['\n\n'])
  assert shown == ['a', '', '\n']
  assert detokenizer.text == 'a\n'
  assert detokenizer.done


@pytest.mark.parametrize('stops', [['END'], ['ENDS', 'END'], ['', 'END']])
def test_a_row_ends_before_the_first_stop_text(stops):
  _, detokenizer = typed('so END it', stops)
  assert detokenizer.text == 'so '
  assert detokenizer.done


def test_a_row_that_has_ended_types_no_more():
  _, detokenizer = typed('a', end=False)
  assert detokenizer.push(-1) == ''
  detokenizer.flush()
  assert detokenizer.push(ord('b')) == ''
  assert detokenizer.text == 'a'
