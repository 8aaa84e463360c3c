"""WordPiece tokenizers (BERT and related), and byte pairs of words (GPT)."""

from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from tfm.data.tokenizer.published.recipe import Draft, Recipe


def _bert(draft: Draft) -> tokenizers.Tokenizer:
  fields = draft.fields
  inner = tokenizers.Tokenizer(models.WordPiece(draft.vocab, unk_token=str(fields['unk_token'])))
  inner.normalizer = normalizers.BertNormalizer(
    clean_text=fields.get('clean_text', True),
    handle_chinese_chars=fields['tokenize_chinese_chars'],
    strip_accents=fields.get('strip_accents'),
    lowercase=fields['do_lower_case'],
  )
  inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  inner.decoder = decoders.WordPiece(prefix=fields.get('wordpieces_prefix', '##'))
  return inner


def _plain_bert(draft: Draft) -> tokenizers.Tokenizer:
  draft.fields.pop('clean_text', None)
  draft.fields.pop('wordpieces_prefix', None)
  return _bert(draft)


def _whole_words(draft: Draft, **normalizer: Any) -> tokenizers.Tokenizer:
  options = {'unk_token': str(draft.fields['unk_token']), 'end_of_word_suffix': '</w>'}
  inner = tokenizers.Tokenizer(models.BPE(draft.vocab, draft.merges or [], **options))
  inner.normalizer = normalizers.BertNormalizer(**normalizer)
  inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  inner.decoder = decoders.BPEDecoder(suffix='</w>')
  return inner


def _frame(draft: Draft) -> None:
  draft.frame([draft.text('cls_token')], [draft.text('sep_token')])


def _herbert_frame(draft: Draft) -> None:
  # The ids do not depend on the vocabulary.
  sep, cls = str(draft.text('sep_token')), str(draft.text('cls_token'))
  draft.inner.post_processor = processors.BertProcessing((sep, 2), (cls, 0))


_LOWER = {'do_lower_case': True, 'tokenize_chinese_chars': True}
_BERT = {
  'unk_token': '[UNK]', 'sep_token': '[SEP]', 'pad_token': '[PAD]', 'cls_token': '[CLS]',
  'mask_token': '[MASK]',
}  # fmt: skip
_FUNNEL = {
  'unk_token': '<unk>', 'sep_token': '<sep>', 'pad_token': '<pad>', 'cls_token': '<cls>',
  'mask_token': '<mask>',
  'bos_token': '<s>', 'eos_token': '</s>',
}  # fmt: skip
_MPNET = {
  'bos_token': '<s>', 'eos_token': '</s>', 'sep_token': '</s>', 'cls_token': '<s>',
  'unk_token': '[UNK]',
  'pad_token': '<pad>', 'mask_token': '<mask>',
}  # fmt: skip
_FLAGS = {name: {'lstrip': name == 'mask_token'} for name in _MPNET}
_HERBERT = {
  'cls_token': '<s>', 'unk_token': '<unk>', 'pad_token': '<pad>', 'mask_token': '<mask>',
  'sep_token': '</s>',
}  # fmt: skip
_PAIRS: dict[str, Any] = {'model': 'BPE', 'vocab': 'vocab.json', 'merges': 'merges.txt'}

RECIPES = {
  'BertTokenizer': Recipe(
    _plain_bert, 'WordPiece', 'vocab.txt', tokens=_BERT, defaults=_LOWER, finish=_frame
  ),
  'SplinterTokenizer': Recipe(
    _plain_bert, 'WordPiece', 'vocab.txt', tokens=_BERT | {'question_token': '[QUESTION]'},
    defaults=_LOWER,
    finish=_frame,
  ),
  'FunnelTokenizer': Recipe(
    _bert, 'WordPiece', 'vocab.txt', tokens=_FUNNEL, defaults=_LOWER, finish=_frame
  ),
  'MPNetTokenizer': Recipe(
    _plain_bert, 'WordPiece', 'vocab.txt', tokens=_MPNET, flags=_FLAGS, defaults=_LOWER,
    finish=_frame
  ),
  'OpenAIGPTTokenizer': Recipe(
    lambda draft: _whole_words(draft, lowercase=True), tokens={'unk_token': '<unk>'}, **_PAIRS
  ),
  'HerbertTokenizer': Recipe(
    lambda draft: _whole_words(draft, lowercase=False, strip_accents=False), tokens=_HERBERT,
    finish=_herbert_frame,
    **_PAIRS,
  ),
}  # fmt: skip
