"""Tokenizers that learn: published numbers, exhaustive searches, and files for transformers."""

import collections
import itertools
import json
import math
from pathlib import Path

import hypothesis
from hypothesis import strategies as st
import pytest
from tokenizers import models

from tfm.core.config import validate
from tfm.core.errors import ConfigError
from tfm.data import tokenizer as tokenizer_lib
from tfm.data.tokenizer import Bpe, File, Greedy, Unigram, Word, WordPiece

#: The words of Sennrich et al. (arXiv:1508.07909), with Z as the end of a word.
WORDS = {'lowZ': 5, 'lowerZ': 2, 'newestZ': 6, 'widestZ': 3}
TEXT = Path(tokenizer_lib.__file__).read_text() * 3 + 'naïve café 日本語 🙂 Times times\n' * 30
LEARNT = {
  'bpe': Bpe(300), 'greedy': Greedy(300), 'unigram': Unigram(300), 'word': Word(60),
  'wordpiece': WordPiece(150),
}  # fmt: skip
LOSSLESS = ('bpe', 'greedy', 'unigram')


def _documents(split):
  return [[TEXT]] if split == 'train' else []


@pytest.fixture(scope='module')
def learnt():
  return {name: tokenizer.learn(_documents) for name, tokenizer in LEARNT.items()}


def _merges(words, count, rank):
  """Return the first merges; among pairs of equal count the one with the lowest `rank`."""
  words, merges = {tuple(word): n for word, n in words.items()}, []
  while len(merges) < count:
    pairs = collections.Counter()
    for word, n in words.items():
      for pair in itertools.pairwise(word):
        pairs[pair] += n
    seen = list(pairs)
    best = max(pairs, key=lambda pair: (pairs[pair], [-r for r in rank(pair, seen, merges)]))
    merges.append(''.join(best))
    words = {_merged(word, best): n for word, n in words.items()}
  return merges


def _merged(word, pair):
  out = []
  for symbol in word:
    if out and (out[-1], symbol) == pair:
      out[-1] += symbol
    else:
      out.append(symbol)
  return tuple(out)


def test_merges_match_the_paper():
  text = ''.join(f'{word}\n' * n for word, n in WORDS.items())
  vocabulary = Bpe(256 + 8).learn(lambda split: [[text]])
  found = json.loads(vocabulary.inner.to_str())['model']['merges']
  first_seen = lambda pair, seen, merges: [seen.index(pair)]
  assert _merges(WORDS, 5, first_seen) == ['es', 'est', 'estZ', 'lo', 'low']
  # The library prefers the lower ids: characters, then merges in their order.
  number = lambda symbol, merges: 999 + merges.index(symbol) if symbol in merges else ord(symbol)
  lowest = lambda pair, seen, merges: [number(symbol, merges) for symbol in pair]
  assert [''.join(pair) for pair in found] == _merges(WORDS, 8, lowest)
  assert {'es', 'estZ', 'lo', 'low'} <= {''.join(pair) for pair in found}


@pytest.mark.parametrize('name', LEARNT)
def test_size_is_exact_and_learning_is_deterministic(learnt, name):
  tokenizer, vocabulary = LEARNT[name], learnt[name]
  assert vocabulary.size == tokenizer.vocab
  assert tokenizer.learn(_documents).inner.to_str() == vocabulary.inner.to_str()
  assert vocabulary.with_specials(('eos', 'pad')).size == tokenizer.vocab + 2


@pytest.mark.parametrize('name', LOSSLESS)
@hypothesis.given(st.text(max_size=80))
@hypothesis.settings(max_examples=100, deadline=None)
def test_any_text_comes_back(learnt, name, text):
  vocabulary = learnt[name]
  ids = vocabulary.encode(text)
  assert vocabulary.decode(ids) == text
  assert vocabulary.byte_lengths[ids].sum() == len(text.encode())
  if at := vocabulary.split_point(text):
    parts = [vocabulary.encode(text[:at]), vocabulary.continuation.encode(text[at:])]
    assert [*itertools.chain(*parts)] == ids.tolist()


@pytest.mark.parametrize('word', ['times', 'tokenizer', 'Vocabulary', 'importpath', 'éaé'])
def test_unigram_equals_exhaustive_search(learnt, word):
  inner = learnt['unigram'].inner
  scores = dict(json.loads(inner.to_str())['model']['vocab'])
  ((mapped, _),) = inner.pre_tokenizer.pre_tokenize_str(word)[:1]
  assert len(mapped) <= 12
  total = lambda pieces: sum(scores.get(piece, -math.inf) for piece in pieces)
  best = max(total(pieces) for pieces in _segmentations(mapped))
  pieces = [token.value for token in inner.model.tokenize(mapped)]
  assert total(pieces) == pytest.approx(best, abs=1e-9)


def _segmentations(word):
  """Yield all 2^(n-1) ways to cut a word."""
  for cuts in itertools.product((False, True), repeat=len(word) - 1):
    places = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(word)]
    yield [word[a:b] for a, b in itertools.pairwise(places)]


def test_greedy_takes_the_longest_token_where_others_do_not():
  text = 'there\n' * 4 + 'he\n' * 30 + 'th\n' * 20 + 'er\n' * 10
  documents = lambda split: [[text]]
  tokens = {}
  for name, tokenizer in (('bpe', Bpe(259)), ('greedy', Greedy(259)), ('unigram', Unigram(300))):
    tokens[name] = tokenizer.learn(documents).inner.encode('there').tokens
  assert tokens['bpe'] == ['t', 'he', 'r', 'e']
  assert tokens['greedy'] == ['th', 'er', 'e']


def test_greedy_differs_from_the_best_segmentation(learnt):
  """With the tokens ab, abc, cd and c, greedy cuts abcd into abc|d, and Viterbi into ab|cd."""
  scores = {'a': -9.0, 'b': -9.0, 'c': -9.0, 'd': -9.0, 'ab': -2.0, 'cd': -2.0, 'abc': -3.0}
  best = max(
    (sum(scores.get(p, -math.inf) for p in pieces), pieces) for pieces in _segmentations('abcd')
  )
  viterbi = models.Unigram(list(scores.items()))
  greedy = models.WordPiece(
    {piece: i for i, piece in enumerate(scores)}, unk_token='a', continuing_subword_prefix=''
  )
  read = lambda model: [token.value for token in model.tokenize('abcd')]
  assert (read(viterbi), read(greedy), best[1]) == (['ab', 'cd'], ['abc', 'd'], ['ab', 'cd'])


def test_long_words_stay_lossless_and_fast():
  vocabulary = Greedy(300).learn(_documents)
  text = 'times' * 4000
  assert vocabulary.decode(vocabulary.encode(text)) == text


def test_words_below_the_limit_are_unknown(learnt):
  vocabulary = learnt['word']
  assert vocabulary.byte_lengths is None
  assert vocabulary.decode(vocabulary.encode('times  import\nZEBRA')) == 'times import <unk>'
  rare = Word(min_count=2).learn(lambda split: [['a b a c a b']])
  assert rare.size == 3
  assert rare.decode(rare.encode('a b c')) == 'a b <unk>'
  spaces = Word(pattern=r'\S+').learn(lambda split: [['a, b']])
  assert spaces.decode(spaces.encode('a, b')) == 'a, b'


def test_word_pieces_continue_with_marks(learnt):
  vocabulary = learnt['wordpiece']
  assert vocabulary.decode(vocabulary.encode('import times')) == 'import times'
  assert any(t.startswith('##') for t in vocabulary.inner.encode('timest').tokens)
  assert vocabulary.decode(vocabulary.encode('times Ж')) == 'times [UNK]'


@pytest.mark.oracle
@pytest.mark.parametrize('name', LEARNT)
def test_saved_tokenizers_are_read_by_transformers(learnt, name, tmp_path):
  transformers = pytest.importorskip('transformers')
  saved = learnt[name].with_specials(('eos', 'pad'))
  saved.save(tmp_path)
  file = str(tmp_path / 'tokenizer.json')
  expected = saved.encode(TEXT).tolist()
  theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=file)
  assert theirs(TEXT)['input_ids'] == expected
  assert theirs.convert_tokens_to_ids('<|endoftext|>') == saved.eos
  assert len(theirs) == saved.size
  assert File(str(tmp_path)).learn(_documents).encode(TEXT).tolist() == expected
  loaded = tokenizer_lib.load(tmp_path)
  assert loaded.encode(TEXT).tolist() == expected
  assert loaded.decode(loaded.encode(TEXT)) == saved.decode(saved.encode(TEXT))


@pytest.mark.parametrize(
  ('tokenizer', 'message'),
  [
    (Unigram(255, shrink=1.0, longest=0), 'vocab: is 255.*\n.*shrink: is 1.0.*\n.*longest: is 0'),
    (Word(1, min_count=0, pattern='('), r"vocab: is 1.*\n.*min_count: is 0.*\n.*pattern: '\('"),
  ],
)
def test_invalid_fields_are_errors(tokenizer, message):
  with pytest.raises(ConfigError, match=message):
    validate(tokenizer)
