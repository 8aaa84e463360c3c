"""Unigram models of SentencePiece: T5, XLM-R, ALBERT and related tokenizers."""

from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from tfm.data.tokenizer.limits import check_count
from tfm.data.tokenizer.published.languages import MBART, MBART50
from tfm.data.tokenizer.published.recipe import Draft, Recipe

_SPACE = '▁'
_SPACES = normalizers.Replace(tokenizers.Regex(' {2,}'), ' ')
_LINES = normalizers.Replace(tokenizers.Regex(r'\s{2,}|[\n\r\t]'), ' ')
Scored = list[tuple[str, float]]


def _unigram(
  draft: Draft, unk_id: int, steps: list[Any], by_words: bool = False, scheme: str = ''
) -> Any:
  """Return a unigram tokenizer.

  Args:
    draft: The draft, with the vocabulary.
    unk_id: The id of the unknown token.
    steps: The normalisers.
    by_words: Split at white space first.
    scheme: Whether a space is put before a text. Defaults to `add_prefix_space`.
  """
  inner = tokenizers.Tokenizer(models.Unigram(draft.vocab, unk_id, False))
  if steps:
    inner.normalizer = normalizers.Sequence(steps)
  scheme = scheme or ('always' if draft.fields.get('add_prefix_space', True) else 'never')
  marks = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme=scheme)
  words = [pre_tokenizers.WhitespaceSplit(), marks]
  inner.pre_tokenizer = pre_tokenizers.Sequence(words) if by_words else marks
  inner.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme=scheme)
  return inner


def _charsmap(draft: Draft) -> list[Any]:
  return [] if draft.charsmap is None else [normalizers.Precompiled(draft.charsmap)]


def _quotes() -> list[Any]:
  return [normalizers.Replace('``', '"'), normalizers.Replace("''", '"')]


def _letters(draft: Draft) -> list[Any]:
  """Return the steps that drop accents and capitals."""
  steps: list[Any] = []
  if not draft.fields['keep_accents']:
    steps += [normalizers.NFKD(), normalizers.StripAccents()]
  return [*steps, normalizers.Lowercase()] if draft.fields['do_lower_case'] else steps


def _albert(draft: Draft) -> tokenizers.Tokenizer:
  inner = _unigram(draft, 1, [*_quotes(), *_letters(draft), *_charsmap(draft)], by_words=True)
  _around(draft, inner)
  return inner


def _around(draft: Draft, inner: tokenizers.Tokenizer) -> None:
  """Set the frame [CLS] and [SEP] before tokens are added, so that no default frame replaces it."""
  draft.inner = inner
  draft.frame([str(draft.fields['cls_token'])], [str(draft.fields['sep_token'])])


def _rembert(draft: Draft) -> tokenizers.Tokenizer:
  return _unigram(draft, 2, [*_quotes(), _SPACES, *_letters(draft), *_charsmap(draft)])


def _xlnet(draft: Draft) -> tokenizers.Tokenizer:
  lower = [normalizers.Lowercase()] if draft.fields['do_lower_case'] else []
  steps = [*_quotes(), normalizers.NFKD(), normalizers.StripAccents(), *lower, *_charsmap(draft)]
  return _unigram(draft, draft.fields['unk_id'], steps, by_words=True, scheme='always')


def _xlm_r(draft: Draft) -> tokenizers.Tokenizer:
  return _unigram(draft, 3, _charsmap(draft), by_words=True)


def _camembert(draft: Draft) -> tokenizers.Tokenizer:
  texts = [text for text, _ in draft.vocab]
  unknown = str(draft.fields['unk_token'])
  unk_id = texts.index(unknown) if unknown in texts else 0
  return _unigram(draft, unk_id, _charsmap(draft), by_words=True)


def _unknown(draft: Draft, otherwise: int) -> int:
  """Return the id of the unknown token, which has score 0."""
  entry = (str(draft.fields['unk_token']), 0.0)
  return draft.vocab.index(entry) if entry in draft.vocab else otherwise


def _barthez(draft: Draft) -> tokenizers.Tokenizer:
  return _unigram(draft, 3, [_LINES, normalizers.NFC(), normalizers.Strip(left=False, right=True)])


def _big_bird(draft: Draft) -> tokenizers.Tokenizer:
  spaces = normalizers.Replace(tokenizers.Regex(' {2,}'), _SPACE)
  return _unigram(draft, _unknown(draft, 100), [normalizers.Strip(left=False, right=False), spaces])


def _deberta(draft: Draft) -> tokenizers.Tokenizer:
  lower = [normalizers.Lowercase()] if draft.fields['do_lower_case'] else []
  scheme = 'always' if draft.fields['add_prefix_space'] else 'first'
  steps = [*lower, _LINES, normalizers.NFC(), normalizers.Strip(left=False, right=True)]
  inner = _unigram(draft, _unknown(draft, draft.fields['unk_id']), steps, scheme=scheme)
  marks: list[Any] = [inner.pre_tokenizer]
  if draft.fields.get('split_by_punct'):
    marks.insert(0, pre_tokenizers.Punctuation(behavior='isolated'))
  inner.pre_tokenizer = pre_tokenizers.Sequence(marks)
  return inner


def _mbart(draft: Draft) -> tokenizers.Tokenizer:
  return _unigram(draft, 3, [], by_words=True, scheme='always')


def _mbart50(draft: Draft) -> tokenizers.Tokenizer:
  return _unigram(draft, 3, [*_charsmap(draft), _SPACES], scheme='always')


def _xglm(draft: Draft) -> tokenizers.Tokenizer:
  return _unigram(draft, 3, [*_charsmap(draft), _SPACES])


def _pegasus(draft: Draft) -> tokenizers.Tokenizer:
  lines = normalizers.Replace(tokenizers.Regex(r'\n'), ' ')
  unknown = draft.vocab.index((str(draft.fields['unk_token']), 0.0), 1)
  return _unigram(draft, unknown, [*(_charsmap(draft) or [lines]), _SPACES], scheme='always')


def _t5(draft: Draft) -> tokenizers.Tokenizer:
  return _unigram(draft, 2, _charsmap(draft), by_words=True, scheme='always')


# The order of pieces. In fairseq, special tokens come first and last.


def _fairseq(
  draft: Draft, vocab: Scored, first: str = 'bos_token', rest: tuple[str, ...] = ()
) -> Scored:
  named = ((first, '<s>'), ('pad_token', '<pad>'), ('eos_token', '</s>'), ('unk_token', '<unk>'))
  before = [(_name(draft, name, text), 0.0) for name, text in named]
  after = [(text, 0.0) for text in (*rest, _name(draft, 'mask_token'))]
  return before + vocab[3:] + after


def _name(draft: Draft, name: str, otherwise: str = '<mask>') -> str:
  return str(draft.fields.get(name, otherwise))


def _camembert_order(draft: Draft, vocab: Scored) -> Scored:
  pad, unknown = _name(draft, 'pad_token', '<pad>'), _name(draft, 'unk_token', '<unk>')
  first = [(text, 0.0) for text in ('<s>NOTUSED', pad, '</s>NOTUSED', unknown)]
  return [*first, ('<unk>NOTUSED', -100.0), *vocab[1:], (_name(draft, 'mask_token'), 0.0)]


def _pegasus_order(draft: Draft, vocab: Scored) -> Scored:
  fields = draft.fields
  first = [_name(draft, 'pad_token', '<pad>'), _name(draft, 'eos_token', '</s>')]
  mask = _name(draft, 'mask_token', '<mask_1>')
  sentence = str(fields.get('mask_token_sent', '<mask_2>'))
  first += [text for text in dict.fromkeys((mask, sentence)) if text != 'None']
  check_count(str(draft.folder), 'offset', fields.get('offset', 103))
  unused = [(f'<unk_{i}>', -100.0) for i in range(2, fields.get('offset', 103))]
  return [*((text, 0.0) for text in first), *unused, *vocab[2:]]


def _t5_order(draft: Draft, vocab: Scored) -> Scored:
  count = draft.fields.get('extra_ids', 100)
  check_count(str(draft.folder), 'extra_ids', count)
  extra = [f'<extra_id_{i}>' for i in reversed(range(count))]
  return [*vocab, *((text, 0.0) for text in extra)]


# Special tokens without names.


def _t5_tokens(draft: Draft) -> None:
  fields = draft.fields
  check_count(str(draft.folder), 'extra_ids', fields['extra_ids'])
  extra = [f'<extra_id_{i}>' for i in range(fields['extra_ids'])]
  known = fields.get('additional_special_tokens')
  if known is None:
    fields['additional_special_tokens'] = extra
  elif not any('<extra_id_' in str(text) for text in known):
    fields['additional_special_tokens'] = [*known, *extra]


def _pegasus_tokens(draft: Draft) -> None:
  fields = draft.fields
  sentence = fields['mask_token_sent']
  known = map(str, fields.get('additional_special_tokens') or [])
  check_count(str(draft.folder), 'offset', fields['offset'])
  tokens = [f'<unk_{i}>' for i in range(2, fields['offset'])]
  if sentence is not None and sentence not in known:
    tokens.insert(0, sentence)
  fields['additional_special_tokens'] = tokens


def _xglm_tokens(draft: Draft) -> None:
  known = draft.fields.get('additional_special_tokens') or []
  texts = [str(t) for t in known]
  made_up = [f'<madeupword{i}>' for i in range(7)]
  draft.fields['additional_special_tokens'] = [*known, *(t for t in made_up if t not in texts)]


def _added(*texts: str) -> Any:
  def prepare(draft: Draft) -> None:
    if draft.fields.get('additional_special_tokens') is None:
      draft.fields['additional_special_tokens'] = list(texts)

  return prepare


def _mbart_tokens(draft: Draft) -> None:
  known = draft.fields.get('additional_special_tokens') or []
  draft.fields['additional_special_tokens'] = [*MBART, *(t for t in known if str(t) not in MBART)]


def _mbart50_tokens(draft: Draft) -> None:
  known = draft.fields.get('additional_special_tokens') or []
  draft.fields['additional_special_tokens'] = [*known, *MBART50]


# Frames.


def _end(draft: Draft) -> None:
  draft.frame([], [draft.text('eos_token')])


def _begin_end(draft: Draft) -> None:
  draft.frame([draft.text('bos_token')], [draft.text('eos_token')])


def _cls_sep(draft: Draft) -> None:
  draft.frame([draft.text('cls_token')], [draft.text('sep_token')])


def _special(draft: Draft) -> None:
  _cls_sep(draft)
  draft.make_special()


def _sep_cls(draft: Draft) -> None:
  draft.frame([], [draft.text('sep_token'), draft.text('cls_token')])


def _eos_first(draft: Draft) -> None:
  draft.frame([draft.text('eos_token')], [])


def _language_last(draft: Draft) -> None:
  draft.frame([], [draft.text('eos_token'), draft.fields.get('src_lang') or 'en_XX'])


def _language_first(draft: Draft) -> None:
  draft.frame([draft.fields.get('src_lang') or 'en_XX'], [draft.text('eos_token')])


_ALBERT = {
  'bos_token': '[CLS]', 'eos_token': '[SEP]', 'unk_token': '<unk>', 'sep_token': '[SEP]',
  'pad_token': '<pad>',
  'cls_token': '[CLS]', 'mask_token': '[MASK]',
}  # fmt: skip
_XLM_R = {
  'bos_token': '<s>', 'eos_token': '</s>', 'sep_token': '</s>', 'cls_token': '<s>',
  'unk_token': '<unk>',
  'pad_token': '<pad>', 'mask_token': '<mask>',
}  # fmt: skip
_MBART50 = {name: text for name, text in _XLM_R.items() if name != 'bos_token'}
_XGLM = {name: text for name, text in _XLM_R.items() if name != 'mask_token'}
_XLNET = _XLM_R | {'sep_token': '<sep>', 'cls_token': '<cls>'}
_BIG_BIRD = _XLM_R | {'sep_token': '[SEP]', 'mask_token': '[MASK]', 'cls_token': '[CLS]'}
_DEBERTA = _ALBERT | {'unk_token': '[UNK]', 'pad_token': '[PAD]'}
_PEGASUS = {
  'pad_token': '<pad>',
  'eos_token': '</s>',
  'unk_token': '<unk>',
  'mask_token': '<mask_2>',
}
_T5 = {'eos_token': '</s>', 'unk_token': '<unk>', 'pad_token': '<pad>'}
_MASK: dict[str, dict[str, bool]] = {'mask_token': {'lstrip': True}}
_BIG_BIRD_FLAGS = {name: {'lstrip': name == 'mask_token'} for name in _BIG_BIRD}
_SPM, _FAIRSEQ = 'spiece.model', 'sentencepiece.bpe.model'
_U = 'Unigram'

RECIPES = {
  'AlbertTokenizer': Recipe(
    _albert, _U, _SPM, tokens=_ALBERT, defaults={'do_lower_case': True, 'keep_accents': False}
  ),
  'FNetTokenizer': Recipe(_albert, None, _SPM, tokens=_ALBERT, whole=True),
  'RemBertTokenizer': Recipe(
    _rembert, _U, 'sentencepiece.model', tokens=_ALBERT, finish=_special,
    defaults={'do_lower_case': False, 'keep_accents': True},
  ),
  'XLNetTokenizer': Recipe(
    _xlnet, _U, _SPM, tokens=_XLNET, flags=_MASK, prepare=_added('<eop>', '<eod>'), finish=_sep_cls,
    defaults={'do_lower_case': False, 'unk_id': 0},
  ),
  'XLMRobertaTokenizer': Recipe(
    _xlm_r, _U, _FAIRSEQ, tokens=_XLM_R, arrange=_fairseq, finish=_begin_end
  ),
  'CamembertTokenizer': Recipe(
    _camembert, None, _FAIRSEQ, tokens=_XLM_R,
    flags={'mask_token': {'lstrip': True, 'special': True}},
    arrange=_camembert_order, prepare=_added('<s>NOTUSED', '</s>NOTUSED', '<unk>NOTUSED'),
    finish=_begin_end,
  ),
  'BarthezTokenizer': Recipe(_barthez, None, _FAIRSEQ, tokens=_XLM_R, flags=_MASK),
  'BigBirdTokenizer': Recipe(
    _big_bird, _U, _SPM, tokens=_BIG_BIRD, flags=_BIG_BIRD_FLAGS, finish=_cls_sep
  ),
  'DebertaV2Tokenizer': Recipe(
    _deberta, _U, 'spm.model', tokens=_DEBERTA, finish=_cls_sep,
    defaults={'do_lower_case': False, 'add_prefix_space': True, 'unk_id': 1},
  ),
  'MBartTokenizer': Recipe(
    _mbart, _U, _FAIRSEQ, tokens=_XLM_R, flags=_MASK, prepare=_mbart_tokens, finish=_language_last,
    language='src_lang',
    arrange=lambda draft, vocab: _fairseq(draft, vocab, rest=MBART),
  ),
  'MBart50Tokenizer': Recipe(
    _mbart50, _U, _FAIRSEQ, tokens=_MBART50, flags=_MASK, prepare=_mbart50_tokens,
    finish=_language_first,
    language='src_lang',
    arrange=lambda draft, vocab: _fairseq(draft, vocab, 'cls_token', MBART50),
  ),
  'XGLMTokenizer': Recipe(_xglm, _U, tokens=_XGLM, prepare=_xglm_tokens, finish=_eos_first),
  'PegasusTokenizer': Recipe(
    _pegasus, _U, _SPM, tokens=_PEGASUS, arrange=_pegasus_order, prepare=_pegasus_tokens,
    finish=_end,
    defaults={'mask_token_sent': '<mask_1>', 'offset': 103},
  ),
  'T5Tokenizer': Recipe(
    _t5, _U, _SPM, tokens=_T5, arrange=_t5_order, prepare=_t5_tokens, finish=_end,
    defaults={'extra_ids': 100}
  ),
}  # fmt: skip
