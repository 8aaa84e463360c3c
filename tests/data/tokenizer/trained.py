"""Small vocabularies, trained on text in many scripts."""

import functools
import json
import pathlib
import tempfile

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from tests.data.tokenizer.strings import STRINGS

CORPUS = [s for s in STRINGS if '<' not in s and '[' not in s and '\0' not in s] * 2 + [
  'the cat sat on the mat and the dog sat on the log',
  'hello world, it is a nice day; do not go',
  'def main(): return 1',
  'A quick brown fox jumps over the lazy dog 1234567890',
  "it's what they've always said, isn't it?",
] * 20


@functools.cache
def sentences(kind='unigram', **options):
  """Return the bytes of a SentencePiece model trained on the corpus."""
  import sentencepiece

  given = {
    'vocab_size': 700,
    'character_coverage': 0.98,
    'hard_vocab_limit': False,
    'minloglevel': 2,
    'unk_id': 0,
    'bos_id': 1,
    'eos_id': 2,
    'max_sentence_length': 1000,
  } | options
  with tempfile.TemporaryDirectory() as folder:
    prefix = str(pathlib.Path(folder) / 'm')
    texts = [
      line
      for text in CORPUS
      for line in text.split('\n')
      if line.strip() and '\x00' not in line and len(line) < 100
    ]
    given = {name: list(v) if isinstance(v, tuple) else v for name, v in given.items()}
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(texts), model_prefix=prefix, model_type=kind, **given
    )
    return pathlib.Path(prefix + '.model').read_bytes()


@functools.cache
def byte_pairs(*special, suffix=None):
  """Return (vocab, merges) of byte pairs, the special tokens first."""
  inner = tokenizers.Tokenizer(models.BPE(end_of_word_suffix=suffix) if suffix else models.BPE())
  words = pre_tokenizers.ByteLevel(add_prefix_space=False)
  inner.pre_tokenizer = words
  if suffix:
    inner.normalizer = normalizers.Lowercase()
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    split = pre_tokenizers.Split(tokenizers.Regex(pattern), 'removed', invert=True)
    inner.pre_tokenizer = pre_tokenizers.Sequence(
      [split, pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  trainer = trainers.BpeTrainer(
    vocab_size=900, initial_alphabet=alphabet, special_tokens=list(special),
    end_of_word_suffix=suffix or '',
    show_progress=False,
  )  # fmt: skip
  inner.train_from_iterator(CORPUS, trainer)
  model = json.loads(inner.to_str())['model']
  return model['vocab'], [tuple(m.split(' ') if isinstance(m, str) else m) for m in model['merges']]


@functools.cache
def word_pairs(*special, suffix='</w>'):
  """Return (vocab, merges) of byte pairs of words."""
  inner = tokenizers.Tokenizer(models.BPE(unk_token=special[0], end_of_word_suffix=suffix))
  inner.normalizer = normalizers.BertNormalizer(lowercase=True)
  inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  trainer = trainers.BpeTrainer(
    vocab_size=600,
    special_tokens=list(special),
    end_of_word_suffix=suffix,
    show_progress=False,
    limit_alphabet=120,
  )
  inner.train_from_iterator(CORPUS, trainer)
  model = json.loads(inner.to_str())['model']
  return model['vocab'], [tuple(m.split(' ') if isinstance(m, str) else m) for m in model['merges']]


@functools.cache
def word_pieces(*special, lower=True):
  """Return the pieces of words by id."""
  inner = tokenizers.Tokenizer(models.WordPiece(unk_token='[UNK]'))
  inner.normalizer = normalizers.BertNormalizer(lowercase=lower)
  inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  trainer = trainers.WordPieceTrainer(
    vocab_size=600, special_tokens=list(special), show_progress=False, limit_alphabet=150
  )
  inner.train_from_iterator(CORPUS, trainer)
  return [t for t, _ in sorted(inner.get_vocab().items(), key=lambda item: item[1])]
