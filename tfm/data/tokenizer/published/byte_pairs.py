"""Byte-level byte-pair encoding: GPT-2 and related tokenizers."""

from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from tfm.data.tokenizer.published.recipe import Draft, Recipe

_FILES: dict[str, Any] = {'model': 'BPE', 'vocab': 'vocab.json', 'merges': 'merges.txt'}
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LINES = r'\s*[\r\n]+|\s+(?!\S)|\s+'
_QWEN2 = (
  rf'{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_LINES}'
)
_QWEN3_5 = (
  rf'{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}|'
  rf' ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_LINES}'
)
_CLIP = (
  r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def _pairs(draft: Draft, **options: Any) -> tokenizers.Tokenizer:
  given = {'continuing_subword_prefix': '', 'end_of_word_suffix': '', 'fuse_unk': False} | options
  inner = tokenizers.Tokenizer(models.BPE(draft.vocab, draft.merges or [], **given))
  inner.decoder = decoders.ByteLevel()
  return inner


def _gpt2(draft: Draft) -> tokenizers.Tokenizer:
  inner = _pairs(draft)
  inner.pre_tokenizer = pre_tokenizers.ByteLevel(
    add_prefix_space=bool(draft.fields.get('add_prefix_space'))
  )
  return inner


def _gpt_neox(draft: Draft) -> tokenizers.Tokenizer:
  inner = _gpt2(draft)
  inner.normalizer = normalizers.NFC()
  return inner


def _cohere(draft: Draft) -> tokenizers.Tokenizer:
  inner = _pairs(draft)
  inner.normalizer = normalizers.NFC()
  bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=bool(draft.fields.get('add_prefix_space')))
  inner.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), bytes_]
  )
  return inner


def _split(draft: Draft, pattern: str) -> tokenizers.Tokenizer:
  inner = _pairs(draft)
  inner.normalizer = normalizers.NFC()
  prefixed = bool(draft.fields.get('add_prefix_space'))
  words = pre_tokenizers.Split(tokenizers.Regex(pattern), 'isolated')
  inner.pre_tokenizer = pre_tokenizers.Sequence(
    [words, pre_tokenizers.ByteLevel(prefixed, use_regex=False)]
  )
  return inner


def _clip(draft: Draft) -> tokenizers.Tokenizer:
  inner = _pairs(draft, end_of_word_suffix='</w>', unk_token=str(draft.fields['unk_token']))
  spaces = normalizers.Replace(tokenizers.Regex(r'\s+'), ' ')
  inner.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
  words = pre_tokenizers.Split(tokenizers.Regex(_CLIP), 'removed', invert=True)
  inner.pre_tokenizer = pre_tokenizers.Sequence(
    [words, pre_tokenizers.ByteLevel(add_prefix_space=False)]
  )
  return inner


def _codegen(draft: Draft) -> tokenizers.Tokenizer:
  inner = _gpt2(draft)
  inner.post_processor = processors.ByteLevel(
    add_prefix_space=True, use_regex=True, trim_offsets=False
  )
  return inner


def _around(draft: Draft, first: str, last: str) -> None:
  before, after = draft.text(first), draft.text(last)
  draft.frame([before], [after])


def _roberta_frame(draft: Draft) -> None:
  _around(draft, 'cls_token', 'sep_token')


def _clip_frame(draft: Draft) -> None:
  _around(draft, 'bos_token', 'eos_token')


def _without_flags(draft: Draft) -> None:
  """Add every special token again, without `lstrip` and `rstrip`."""
  texts = dict.fromkeys(
    str(value) for value in [*draft.named.values(), *draft.extra] if value is not None
  )
  draft.inner.add_tokens([tokenizers.AddedToken(text, special=True) for text in texts])


def _luke_tokens(draft: Draft) -> None:
  fields = draft.fields
  extra = [*(fields.pop('extra_special_tokens', None) or [])]
  extra += fields.pop('additional_special_tokens', None) or []
  entities = [str(fields.get(f'entity_token_{i}', name)) for i, name in _ENTITIES]
  fields |= {f'entity_{i}_token': text for i, text in enumerate(entities, 1)}
  texts = {str(token) for token in extra}
  extra += [tokenizers.AddedToken(text) for text in entities if text not in texts]
  fields['extra_special_tokens'] = extra


_ENTITIES = ((1, '<ent>'), (2, '<ent2>'))
_END = '<|endoftext|>'
_GPT2 = {'unk_token': _END, 'bos_token': _END, 'eos_token': _END}
_BART = {
  'bos_token': '<s>', 'eos_token': '</s>', 'sep_token': '</s>', 'cls_token': '<s>',
  'unk_token': '<unk>',
  'pad_token': '<pad>', 'mask_token': '<mask>',
}  # fmt: skip
_BERT = {
  'bos_token': '[CLS]', 'eos_token': '[SEP]', 'sep_token': '[SEP]', 'cls_token': '[CLS]',
  'unk_token': '[UNK]',
  'pad_token': '[PAD]', 'mask_token': '[MASK]',
}  # fmt: skip
_COHERE = {
  'unk_token': '<UNK>', 'bos_token': '<BOS_TOKEN>', 'eos_token': '<|END_OF_TURN_TOKEN|>',
  'pad_token': '<PAD>',
  'cls_token': '<CLS>', 'sep_token': '<SEP>', 'mask_token': '<MASK_TOKEN>',
}  # fmt: skip
_QWEN = {'unk_token': _END, 'eos_token': _END, 'pad_token': _END}
_LUKE = {
  'entity_unk_token': '[UNK]', 'entity_pad_token': '[PAD]', 'entity_mask_token': '[MASK]',
  'entity_mask2_token': '[MASK2]', 'entity_1_token': '<ent>', 'entity_2_token': '<ent2>',
}  # fmt: skip

RECIPES = {
  'GPT2Tokenizer': Recipe(_gpt2, tokens=_GPT2, **_FILES),
  'CodeGenTokenizer': Recipe(_codegen, tokens=_GPT2, **_FILES),
  'GPTNeoXTokenizer': Recipe(
    _gpt_neox, tokens=_GPT2 | {'pad_token': '<|padding|>'}, finish=Draft.frame_by_flags, **_FILES
  ),
  'RobertaTokenizer': Recipe(_gpt2, tokens=_BART, finish=_roberta_frame, **_FILES),
  'LukeTokenizer': Recipe(
    _gpt2, tokens=_BART | _LUKE, prepare=_luke_tokens, finish=_roberta_frame,
    decoding={'clean_pairs': True}, **_FILES
  ),
  'DebertaTokenizer': Recipe(_gpt2, tokens=_BERT, finish=_roberta_frame, **_FILES),
  'BlenderbotTokenizer': Recipe(
    _gpt2, tokens=_BART, flags={'mask_token': {'lstrip': True, 'normalized': False}},
    defaults={'add_prefix_space': True}, **_FILES,
  ),
  'CohereTokenizer': Recipe(_cohere, tokens=_COHERE, finish=Draft.make_special, **_FILES),
  'Qwen2Tokenizer': Recipe(
    lambda draft: _split(draft, _QWEN2), tokens=_QWEN, finish=_without_flags, **_FILES
  ),
  'Qwen3_5Tokenizer': Recipe(
    lambda draft: _split(draft, _QWEN3_5), tokens=_QWEN, model='BPE', vocab='tokenizer.model'
  ),
  'CLIPTokenizer': Recipe(
    _clip, tokens=_QWEN | {'bos_token': '<|startoftext|>'}, finish=_clip_frame,
    decoding={'suffix': '</w>'}, **_FILES
  ),
}  # fmt: skip
