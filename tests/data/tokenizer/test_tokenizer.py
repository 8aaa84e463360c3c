import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from tfm.core.errors import UserError
from tfm.data import tokenizer as tokenizer_lib
from tfm.data.tokenizer import TABLE, Bpe, Byte, Char, File, StreamDecoder

TEXT = (
  "def f(self, x):\n    return self.x + 'naïve café' * 42  # 日本語\n\n\nclass A:\n\tpass\n" * 20
)

#: The tokenizers that keep every character. `test_learnt.py` has the others.
LOSSLESS = sorted(set(TABLE) - {'word', 'wordpiece'})


def _documents(split):
  return [[TEXT], [TEXT[:100]]] if split == 'train' else [[TEXT[:50]]]


@pytest.fixture(scope='module')
def bpe():
  return Bpe(vocab=300).learn(_documents)


@pytest.fixture(scope='module')
def words(tmp_path_factory):
  """A `tokenizer.json` like BERT's, with special tokens and without known byte lengths."""
  inner = tokenizers.Tokenizer(models.WordPiece(unk_token='[UNK]'))
  inner.pre_tokenizer = pre_tokenizers.Whitespace()
  inner.decoder = decoders.WordPiece()
  specials = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
  inner.train_from_iterator(
    ['play plays player playing games'], trainers.WordPieceTrainer(special_tokens=specials)
  )
  inner.enable_padding(length=64)
  path = tmp_path_factory.mktemp('words') / 'tokenizer.json'
  inner.save(str(path))
  return path


@pytest.fixture(scope='module', params=LOSSLESS)
def vocabulary(request, bpe, tmp_path_factory):
  if request.param == 'file':
    path = tmp_path_factory.mktemp('saved')
    bpe.save(path)
    return File(str(path / 'tokenizer.json')).learn(_documents)
  return bpe if request.param == 'bpe' else TABLE[request.param]().learn(_documents)


def test_text_comes_back(vocabulary):
  ids = vocabulary.encode(TEXT)
  assert ids.dtype == np.int32
  assert 0 <= ids.min() <= ids.max() < vocabulary.size
  assert vocabulary.decode(ids) == TEXT


def test_byte_lengths_add_up_to_the_bytes_of_the_text(vocabulary):
  assert vocabulary.byte_lengths[vocabulary.encode(TEXT)].sum() == len(TEXT.encode())


def test_empty_text_encodes_to_no_tokens(vocabulary):
  assert vocabulary.encode('').tolist() == []
  assert vocabulary.decode([]) == ''


def test_special_tokens_follow_the_vocabulary_without_text(vocabulary):
  asked = vocabulary.with_specials(('sentinel_0', 'sentinel_1', 'mask', 'eos', 'pad'))
  n = vocabulary.size
  assert asked.size == n + 5
  assert (asked.eos, asked.mask, asked.pad) == (n, n + 1, n + 2)
  assert asked.sentinels.tolist() == [n + 4, n + 3]
  assert asked.is_special.nonzero()[0].tolist() == list(range(n, n + 5))
  assert asked.decode([n, *asked.encode('def'), n + 4]) == 'def'
  assert not asked.byte_lengths[n:].any()
  assert vocabulary.specials == {}


def test_special_token_keeps_its_id(vocabulary):
  eos = vocabulary.with_specials(('eos',))
  more = eos.with_specials(('mask', 'eos'))
  assert more.eos == eos.eos
  assert more.mask == eos.size


def test_vocabulary_is_saved_and_loaded_without_its_text(vocabulary, tmp_path):
  saved = vocabulary.with_specials(('eos', 'mask', 'sentinel_0'))
  saved.save(tmp_path)
  loaded = tokenizer_lib.load(tmp_path)
  assert loaded.specials == saved.specials
  assert loaded.size == saved.size
  assert loaded.encode(TEXT).tolist() == vocabulary.encode(TEXT).tolist()
  assert loaded.decode(loaded.encode(TEXT)) == TEXT


def test_stream_prints_only_whole_characters(vocabulary):
  stream = StreamDecoder(vocabulary)
  pieces = [stream.push(i) for i in vocabulary.encode(TEXT[:200])] + [stream.flush()]
  assert ''.join(pieces) == TEXT[:200]
  assert '�' not in ''.join(pieces)


def test_stream_marks_an_incomplete_last_character():
  stream = StreamDecoder(Byte().learn(_documents))
  assert [stream.push('日'.encode()[0]), stream.flush()] == ['', '�']


def test_id_outside_the_vocabulary_is_an_error(vocabulary):
  with pytest.raises(
    UserError, match=f'id {vocabulary.size} is outside the vocabulary of {vocabulary.size} tokens'
  ):
    vocabulary.decode([vocabulary.size])


def test_spelled_special_token_is_plain_text(bpe, tmp_path):
  bpe.with_specials(('eos', 'mask')).save(tmp_path)
  for vocabulary in (
    tokenizer_lib.load(tmp_path),
    File(str(tmp_path / 'tokenizer.json')).learn(_documents),
  ):
    vocabulary = vocabulary.with_specials(('eos',))
    assert vocabulary.eos == 300
    assert not vocabulary.is_special[vocabulary.encode('a <|endoftext|> b <|mask|>')].any()


def test_bpe_has_the_given_size_and_is_deterministic(bpe):
  again = Bpe(vocab=300).learn(_documents)
  assert bpe.size == 300
  assert bpe.inner.to_str() == again.inner.to_str()
  assert len(bpe.encode(TEXT)) < 0.8 * len(TEXT.encode())


def test_bpe_learns_only_from_the_sample():
  assert Bpe(vocab=300, sample=7).learn(_documents).size < 300


@hypothesis.given(
  st.text(alphabet=st.sampled_from(list("abzé日9 '!._\n\t\r\x1c\x85\xa0\u2028")), max_size=60)
)
@hypothesis.settings(max_examples=300, deadline=None)
def test_encoding_by_word_matches_encoding_the_text(bpe, text):
  whole = bpe.inner.encode(text, add_special_tokens=False).ids
  assert bpe.encode(text).tolist() == whole


def test_unseen_characters_become_the_unknown_token():
  vocabulary = Char().learn(lambda split: [['abc']] if split == 'train' else [['abé']])
  assert vocabulary.size == 4
  assert vocabulary.encode('éa').tolist() == [3, 0]
  assert vocabulary.decode([3, 0]) == '�a'


def test_unknown_character_without_an_unknown_token_is_an_error():
  vocabulary = Char().learn(lambda split: [['abc']])
  assert vocabulary.size == 3
  with pytest.raises(UserError, match=r"character 'é' \(in 'aé'\) is not among the 3 characters"):
    vocabulary.encode('aé')


def test_tokenizer_file_keeps_its_special_tokens(words):
  vocabulary = File(str(words)).learn(_documents)
  n = vocabulary.size
  assert vocabulary.byte_lengths is None
  assert len(vocabulary.encode('play')) < 5  # neither padded nor framed by [CLS] and [SEP]
  asked = vocabulary.with_specials(('eos', 'pad', 'mask', 'sentinel_0'))
  assert (asked.pad, asked.eos, asked.mask) == (0, 3, 4)
  assert asked.sentinels.tolist() == [n]
  assert asked.is_special[:5].all()
  assert asked.decode([*asked.encode('playing games'), asked.eos, n]) == 'playing games'


def test_stream_of_word_pieces_has_the_spaces_of_the_text(words):
  vocabulary = File(str(words)).learn(_documents)
  stream = StreamDecoder(vocabulary)
  text = 'player plays games'
  assert ''.join([stream.push(i) for i in vocabulary.encode(text)] + [stream.flush()]) == text


def test_invalid_tokenizer_file_is_an_error(tmp_path):
  (tmp_path / 'x.json').write_text('{}')
  with pytest.raises(UserError, match=r'data.tokenizer.path: .*x.json is not a tokenizer.json'):
    File(str(tmp_path / 'x.json')).learn(_documents)
  with pytest.raises(UserError, match=r"data.tokenizer.path: cannot read 'gone' \(No such file"):
    File('gone').learn(_documents)
  assert list(File().check()) == [
    'path: is empty. Expected the path of a tokenizer.json, or of a folder with one.'
  ]


def test_missing_or_broken_vocabulary_is_an_error(tmp_path):
  with pytest.raises(UserError, match='cannot read the vocabulary'):
    tokenizer_lib.load(tmp_path)
  (tmp_path / 'vocabulary.json').write_text('{"kind": "runes"}')
  with pytest.raises(UserError, match=r'is not a vocabulary .*Expected a file that tfm wrote'):
    tokenizer_lib.load(tmp_path)


def test_bpe_smaller_than_its_bytes_is_an_error():
  assert list(Bpe(vocab=255, sample=0).check()) == [
    'vocab: is 255. Expected 256 or more, a token for every byte.',
    'sample: is 0. Expected 1 character or more.',
  ]
