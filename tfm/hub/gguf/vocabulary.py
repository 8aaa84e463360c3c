"""The tokenizer inside a GGUF file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from tfm.core import errors

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_SPACE = '▁'

_LLAMA3 = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
  r'|\s*[\r\n]+|\s+(?!\S)|\s+'
)
_QWEN2 = _LLAMA3.replace(r'\p{N}{1,3}', r'\p{N}')
_TEKKEN = (
  r'[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+'
  r'|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*'
  r'|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)

#: `tokenizer.ggml.pre` -> how text is cut into words before byte pairs are merged; None is GPT-2's
#: own rule.
_WORDS: dict[str, str | None] = {
  'llama-bpe': _LLAMA3, 'llama3': _LLAMA3, 'llama-v3': _LLAMA3, 'smaug-bpe': _LLAMA3,
  'falcon3': _LLAMA3,
  'pixtral': _LLAMA3, 'qwen2': _QWEN2, 'deepseek-r1-qwen': _QWEN2, 'megrez': _QWEN2,
  'tekken': _TEKKEN,
  'gpt-2': None, 'default': None, 'smollm': None,
}  # fmt: skip
#: With these rules a word that is a token is not split and merged.
_WHOLE_WORDS: tuple[str | None, ...] = (_LLAMA3, _TEKKEN)


def build_tokenizer(
  path: Path, fields: Mapping[str, Any], architecture: str
) -> tokenizers.Tokenizer | None:
  """Return the tokenizer that a header describes, with its special tokens around a text; None if
  there is none.

  Raises:
    UserError: its kind, or the way that it cuts text into words, is not read.
  """
  get = lambda name, default=None: fields.get(f'tokenizer.ggml.{name}', default)
  kind, texts = get('model'), get('tokens')
  if texts is None or kind in (None, 'none', 'no_vocab'):
    return None
  kinds = [int(k) for k in get('token_type', [_NORMAL] * len(texts))]
  if kind == 'gpt2':
    inner = _byte_pairs(path, get('pre', 'default'), texts, kinds, get('merges', []))
  elif kind == 'llama':
    prefixed = bool(get('add_space_prefix', not architecture.startswith('gemma')))
    scores = (
      [-i for i in range(len(texts))]
      if architecture.startswith('gemma')
      else list(get('scores', ()))
    )
    inner = _sentence_pieces(texts, kinds, scores, prefixed)
  else:
    raise errors.UserError(
      f'{path}: tokenizer.ggml.model: {errors.unknown("value", kind, ("gpt2", "llama"))}'
    )
  for special, wanted in ((True, (_UNKNOWN, _CONTROL)), (False, (_USER,))):
    own = [_spelt(t, k) for t, k in zip(texts, kinds, strict=True) if k in wanted]
    add = inner.add_special_tokens if special else inner.add_tokens
    add([AddedToken(text, normalized=False, special=special) for text in own])
  _frame(inner, fields, texts, kind)
  return inner


def _byte_pairs(
  path: Path, pre: str, texts: Sequence[str], kinds: Sequence[int], merges: Sequence[str]
) -> tokenizers.Tokenizer:
  """Return byte pairs of bytes in GPT-2's printable guise."""
  if pre not in _WORDS:
    raise errors.UserError(f'{path}: tokenizer.ggml.pre: {errors.unknown("value", pre, _WORDS)}')
  words = _WORDS[pre]
  vocab = {t: i for i, (t, k) in enumerate(zip(texts, kinds, strict=True)) if k != _UNUSED}
  pairs = [(left, right) for left, _, right in (merge.partition(' ') for merge in merges)]
  inner = tokenizers.Tokenizer(models.BPE(vocab, pairs, ignore_merges=words in _WHOLE_WORDS))
  bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words is None)
  if words is not None:
    inner.pre_tokenizer = pre_tokenizers.Sequence(
      [pre_tokenizers.Split(Regex(words), 'isolated'), bytes_of]
    )
  elif pre == 'smollm':
    inner.pre_tokenizer = pre_tokenizers.Sequence(
      [pre_tokenizers.Digits(individual_digits=True), bytes_of]
    )
  else:
    inner.pre_tokenizer = bytes_of
  if words == _QWEN2:
    inner.normalizer = normalizers.NFC()
  inner.decoder = decoders.ByteLevel()
  return inner


def _sentence_pieces(
  texts: Sequence[str], kinds: Sequence[int], scores: Sequence[float], prefixed: bool
) -> tokenizers.Tokenizer:
  """Return SentencePiece byte pairs. The pair with the best score is merged first."""
  spelt = [_spelt(t, k) for t, k in zip(texts, kinds, strict=True)]
  vocab = {t: i for i, (t, k) in enumerate(zip(spelt, kinds, strict=True)) if k != _UNUSED}
  place = {t: i for t, i in vocab.items() if kinds[i] in (_NORMAL, _USER)}
  made = []
  for text, i in place.items():
    for cut in range(1, len(text)):
      left, right = text[:cut], text[cut:]
      if left in place and right in place:
        made.append((-scores[i], i, place[left], place[right], left, right))
  unknown = next((t for t, k in zip(spelt, kinds, strict=True) if k == _UNKNOWN), None)
  pairs = [(left, right) for *_, left, right in sorted(made)]
  inner = tokenizers.Tokenizer(
    models.BPE(vocab, pairs, unk_token=unknown, fuse_unk=True, byte_fallback=_BYTE in kinds)
  )
  prepend = [normalizers.Prepend(_SPACE)] if prefixed else []
  inner.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(' ', _SPACE)])
  strip = [decoders.Strip(' ', 1, 0)] if prefixed else []
  inner.decoder = decoders.Sequence(
    [decoders.Replace(_SPACE, ' '), decoders.ByteFallback(), decoders.Fuse(), *strip]
  )
  return inner


def _spelt(text: str, kind: int) -> str:
  """Return a token as text is normalised: llama.cpp stores runs of spaces that users defined with
  plain spaces.
  """
  return text.replace(' ', _SPACE) if kind == _USER and text and not text.strip(' ') else text


def _frame(
  inner: tokenizers.Tokenizer, fields: Mapping[str, Any], texts: Sequence[str], kind: str
) -> None:
  """Add the begin and end tokens that the header sets."""
  pre = fields.get('tokenizer.ggml.pre', 'default')
  usual = {'bos': kind == 'llama' or _WORDS.get(pre) in _WHOLE_WORDS, 'eos': False}
  wanted = {}
  for name, default in usual.items():
    number = fields.get(f'tokenizer.ggml.{name}_token_id')
    if number is not None and fields.get(f'tokenizer.ggml.add_{name}_token', default):
      wanted[name] = (texts[number], int(number))
  if wanted:
    parts = [wanted['bos'][0]] if 'bos' in wanted else []
    parts += ['$A'] + ([wanted['eos'][0]] if 'eos' in wanted else [])
    template = processors.TemplateProcessing(
      single=' '.join(parts), special_tokens=list(wanted.values())
    )
    bytes_ = [processors.ByteLevel(trim_offsets=False)] if kind == 'gpt2' else []
    inner.post_processor = processors.Sequence([*bytes_, template]) if bytes_ else template
