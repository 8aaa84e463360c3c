"""Text in chunks has the tokens of the whole text, for every tokenizer."""

import itertools
import logging

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from tfm.data import text_chunks
from tfm.data.framing import Framing
from tfm.data.store import Store
from tfm.data.store_writer import write_store
from tfm.data.tokenizer import Bpe, Byte, Char, file

WORDS = [
  'the',
  ' cat',
  " isn't",
  'café',
  '日本',
  '語。',
  'x',
  '12345',
  ' 7',
  "'s",
  '!?',
  ' (',
  '--',
  'e\u0301',
  'Über',
  '▁',
]
GAPS = [' ', ' ', ' ', '\n', '\n\n', '  ', ' \n ', '\t', '\r\n', '\xa0', '\u2028', '\x85', '\x1c']
ALPHABET = [*WORDS, *GAPS]
TEXT = ''.join(ALPHABET * 3 + [f'{a}{gap}{b}' for gap in (' ', '\n') for a in WORDS for b in WORDS])
# The split pattern of Llama 3: line ends follow punctuation, and digits are in threes.
LLAMA3 = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
  r'\s*[\r\n]+|\s+(?!\S)|\s+'
)


def _trained(model, trainer, before, normal=None, decoder=None, **fields):
  inner = tokenizers.Tokenizer(model(**fields))
  inner.normalizer, inner.decoder = normal, decoder
  inner.pre_tokenizer = before
  inner.train_from_iterator([TEXT] * 2, trainer)
  return inner


def _bytes(before, normal=None, **fields):
  trainer = trainers.BpeTrainer(
    vocab_size=400,
    initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    show_progress=False,
    **fields,
  )
  return _trained(models.BPE, trainer, before, normal, decoders.ByteLevel())


def _pieces(before, after):
  """Return byte pairs as in Llama 2: learnt from words, applied to unsplit text."""
  trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=['<unk>'], show_progress=False)
  spaces = pre_tokenizers.Metaspace()
  inner = _trained(models.BPE, trainer, spaces, unk_token='<unk>', fuse_unk=True)
  inner.normalizer, inner.pre_tokenizer = before, after
  return inner


def _word_pieces():
  trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=['[UNK]'], show_progress=False)
  before = pre_tokenizers.BertPreTokenizer()
  return _trained(
    models.WordPiece, trainer, before, normalizers.BertNormalizer(), unk_token='[UNK]'
  )


def _unigrams():
  trainer = trainers.UnigramTrainer(
    vocab_size=200, special_tokens=['<unk>'], unk_token='<unk>', show_progress=False
  )
  before = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
  return _trained(models.Unigram, trainer, before, normalizers.NFKC())


def _added():
  inner = _bytes(pre_tokenizers.ByteLevel(add_prefix_space=False))
  inner.add_tokens(['  ', 'cat x', '\n\n'])
  return inner


UNSPLIT = pre_tokenizers.Metaspace(prepend_scheme='first', split=False)
MAKE = {
  'byte level': lambda: _bytes(pre_tokenizers.ByteLevel(add_prefix_space=False)),
  'byte level after a space': lambda: _bytes(pre_tokenizers.ByteLevel(add_prefix_space=True)),
  'Llama 3': lambda: _bytes(
    pre_tokenizers.Sequence(
      [
        pre_tokenizers.Split(tokenizers.Regex(LLAMA3), 'isolated'),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
      ]
    ),
    normalizers.NFC(),
  ),
  'added words': _added,
  'Llama 2': lambda: _pieces(
    normalizers.Sequence([normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')]), None
  ),
  'Llama 2, newer': lambda: _pieces(None, UNSPLIT),
  'Gemma': lambda: _pieces(
    normalizers.Replace(' ', '▁'), pre_tokenizers.Split(' ', 'merged_with_previous')
  ),
  'BERT': _word_pieces,
  'T5': _unigrams,
}
MIXED = st.lists(st.sampled_from(ALPHABET), max_size=80).map(''.join)


def _parts(text, places):
  places = sorted({0, len(text), *(p % (len(text) + 1) for p in places)})
  return [text[a:b] for a, b in itertools.pairwise(places)]


def _encoded(vocabulary, pieces):
  ids = [vocabulary.encode(piece) for piece in pieces[:1]]
  ids += [vocabulary.continuation.encode(piece) for piece in pieces[1:]]
  return np.concatenate([np.zeros(0, np.int32), *ids]).tolist()


@pytest.fixture(scope='module', params=['byte', 'char', 'bpe', *MAKE])
def vocabulary(request):
  if request.param in MAKE:
    return file.FileVocabulary(MAKE[request.param]())
  kind = {'byte': Byte(), 'char': Char(), 'bpe': Bpe(vocab=400)}[request.param]
  return kind.learn(lambda split: [[TEXT]])


@hypothesis.given(MIXED, st.lists(st.integers(0, 400), max_size=6), st.integers(1, 60))
@hypothesis.settings(max_examples=60, deadline=None)
def test_chunks_have_the_tokens_of_the_whole_text(vocabulary, text, places, size):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(file, '_CONTEXT', 40)
    pieces = list(text_chunks.chunks(_parts(text, places), vocabulary.split_point, size))
    assert ''.join(pieces) == text
    assert all(pieces)
    assert _encoded(vocabulary, pieces) == vocabulary.encode(text).tolist()


@pytest.mark.parametrize('cores', [1, 64])
def test_tokens_do_not_depend_on_the_number_of_cores(monkeypatch, cores):
  vocabulary = Bpe(vocab=400).learn(lambda split: [[TEXT]])
  monkeypatch.setattr(file, '_cores', lambda: cores)
  texts = [TEXT, TEXT[5:], ' a', '']
  whole = [vocabulary.inner.encode(text).ids for text in texts]
  assert [ids.tolist() for ids in vocabulary.encode_batch(texts)] == whole


def test_prose_is_split(vocabulary, monkeypatch):
  monkeypatch.setattr(file, '_CONTEXT', 40)
  text = "The cat isn't 12345 x.\nÜber (the) cat! " * 50
  pieces = list(text_chunks.chunks([text], vocabulary.split_point, 200))
  assert max(map(len, pieces)) <= 500


@pytest.mark.parametrize(
  'inner',
  [
    lambda: tokenizers.Tokenizer(
      models.BPE({'a': 0, '▁': 1, 'a▁': 2, 'a▁a': 3}, [('a', '▁'), ('a▁', 'a')])
    ),
    lambda: _trained(
      models.Unigram, trainers.UnigramTrainer(vocab_size=90, show_progress=False), UNSPLIT
    ),
  ],
  ids=['tokens across words', 'unigram model'],
)
def test_text_with_long_range_effects_is_not_split(inner):
  vocabulary = file.FileVocabulary(inner())
  assert vocabulary.split_point('a a cat ' * 1000) == 0


def test_unsplit_text_warns_once(caplog, monkeypatch):
  monkeypatch.setattr(text_chunks, '_WARN_SIZE', 2_000_000)
  with caplog.at_level(logging.WARNING):
    pieces = list(text_chunks.chunks(('x' * 100_000 for _ in range(60)), lambda text: 0, 1 << 17))
  assert [len(piece) for piece in pieces] == [6_000_000]
  assert [record.getMessage() for record in caplog.records] == [
    'data: 3 million characters are held in memory, because this tokenizer cannot split them. '
    'Expected text with spaces or line ends, or data.tokenizer=byte or char.'
  ]


def test_bpe_learns_the_same_from_chunks(monkeypatch):
  monkeypatch.setattr('tfm.data.tokenizer.learnt._CHUNK', 50)
  parts = _parts(TEXT, range(0, 3000, 7))
  learn = lambda *documents: (
    Bpe(vocab=500, sample=1500).learn(lambda split: documents).inner.to_str()
  )
  assert learn(parts[:30], parts[30:]) == learn([''.join(parts[:30])], [''.join(parts[30:])])


def test_document_in_chunks_is_one_document(tmp_path, monkeypatch, vocabulary):
  monkeypatch.setattr(file, '_CONTEXT', 40)
  documents = {'train': [[TEXT], ['x'], [TEXT[50:]]], 'val': []}
  stores = []
  for name, size in (('whole', 1 << 20), ('cut', 100)):
    monkeypatch.setattr('tfm.data.store_writer._CHUNK', size)
    (tmp_path / name).mkdir()
    ended = vocabulary.with_specials(('eos',))
    write_store(tmp_path / name, ended, documents.__getitem__, Framing(end=(ended.eos,)))
    stores.append(Store.read(tmp_path / name))
  whole, parted = (store.splits['train'] for store in stores)
  assert whole.tokens.tolist() == parted.tokens.tolist()
  assert whole.starts.tolist() == parted.starts.tolist()
  assert stores[0].content == stores[1].content
