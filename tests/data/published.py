"""Small tokenizers in the format of published ones."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from tfm.data.tokenizer.file import FileVocabulary

TEXT = 'the cat sat on the mat'


def byte_pairs(*specials, begin='', end=''):
  """Return a byte-level tokenizer with special tokens, and a template of prompts."""
  inner = Tokenizer(models.BPE())
  inner.pre_tokenizer, inner.decoder = (
    pre_tokenizers.ByteLevel(add_prefix_space=False),
    decoders.ByteLevel(),
  )
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  inner.train_from_iterator(
    [TEXT], trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False)
  )
  inner.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
  return _framed(inner, begin, end)


def word_pieces():
  """Return a tokenizer like BERT's."""
  words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *sorted(set(TEXT.split()))]
  words += [prefix + letter for prefix in ('', '##') for letter in 'abcdefghijklmnopqrstuvwxyz1.']
  inner = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token='[UNK]'))
  inner.pre_tokenizer, inner.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
  inner.add_special_tokens(words[:5])
  return _framed(inner, '[CLS]', '[SEP]')


def vocabulary(inner, **specials):
  """Return the vocabulary of a tokenizer, with the spelling of each special token."""
  return FileVocabulary(
    inner, {name: inner.token_to_id(text) for name, text in specials.items()}, framed=True
  )


def _framed(inner, begin, end):
  template = ' '.join(part for part in (begin, '$A', end) if part)
  tokens = [(text, inner.token_to_id(text)) for text in dict.fromkeys((begin, end)) if text]
  if tokens:
    inner.post_processor = processors.TemplateProcessing(single=template, special_tokens=tokens)
  return inner
