import pytest

from tfm.data.tokenizer import ByteVocabulary
from tfm.generate.typist import Typist


def typed(text, stops=(), end=True):
  typist = Typist(ByteVocabulary(), stops)
  shown = [typist.push(i) for i in text.encode()] + ([typist.flush()] if end else [])
  return shown, typist


def test_text_is_shown_in_whole_characters():
  shown, typist = typed('é!')
  assert shown == ['', 'é', '!', '']
  assert typist.text == 'é!'


def test_what_might_become_a_stop_text_is_held_back_until_it_does_not():
  shown, typist = typed('a\n\nb', ['\n\nc'])
  assert shown == ['a', '', '', '\n\nb', '']
  assert typist.text == 'a\n\nb'


def test_the_end_lets_go_of_what_was_held_back():
  shown, typist = typed('a\n', ['\n\n'])
  assert shown == ['a', '', '\n']
  assert typist.text == 'a\n'
  assert typist.done


@pytest.mark.parametrize('stops', [['END'], ['ENDS', 'END'], ['', 'END']])
def test_a_row_ends_before_the_first_stop_text(stops):
  _, typist = typed('so END it', stops)
  assert typist.text == 'so '
  assert typist.done


def test_a_row_that_has_ended_types_no_more():
  _, typist = typed('a', end=False)
  assert typist.push(-1) == ''
  typist.flush()
  assert typist.push(ord('b')) == ''
  assert typist.text == 'a'
