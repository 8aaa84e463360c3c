"""Build the tokenizer of a GGUF file."""

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

#: `tokenizer.ggml.pre` -> the pattern that splits text into words. None is GPT-2's pattern.
_WORDS: dict[str, str | None] = {
  'llama-bpe': _LLAMA3, 'llama3': _LLAMA3, 'llama-v3': _LLAMA3, 'smaug-bpe': _LLAMA3,
  'falcon3': _LLAMA3, 'pixtral': _LLAMA3, 'qwen2': _QWEN2, 'deepseek-r1-qwen': _QWEN2,
  'megrez': _QWEN2, 'tekken': _TEKKEN, 'gpt-2': None, 'default': None, 'smollm': None,
}  # fmt: skip
#: With these patterns, a word that is a token is encoded without merges.
_WHOLE_WORDS: tuple[str | None, ...] = (_LLAMA3, _TEKKEN)


def build_tokenizer(
  path: Path, fields: Mapping[str, Any], architecture: str
) -> tokenizers.Tokenizer | None:
  """Return the tokenizer of a GGUF header, None if there is none.

  It adds special tokens around texts as the header specifies.

  Args:
    path: The file, for errors.
    fields: The values of the header.
    architecture: The field `general.architecture`.

  Returns:
    The tokenizer.

  Raises:
    UserError: The kind of tokenizer or its pre-tokenizer is not supported.
  """
  get = lambda name, default=None: fields.get(f'tokenizer.ggml.{name}', default)
  kind, texts = get('model'), get('tokens')
  if texts is None or kind in (None, 'none', 'no_vocab'):
    return None
  kinds = [int(k) for k in get('token_type', [_NORMAL] * len(texts))]
  if kind == 'gpt2':
    inner = _byte_pairs(path, get('pre', 'default'), texts, kinds, get('merges', []))
  elif kind == 'llama':
    is_gemma = architecture.startswith('gemma')
    scores = list(get('scores', ()))
    if is_gemma:
      scores = [-i for i in range(len(texts))]
    inner = _sentence_pieces(texts, kinds, scores, bool(get('add_space_prefix', not is_gemma)))
  else:
    raise errors.UserError(
      f'{path}: tokenizer.ggml.model: {errors.unknown("value", kind, ("gpt2", "llama"))}'
    )
  for special, added_kinds in ((True, (_UNKNOWN, _CONTROL)), (False, (_USER,))):
    added = [_normalised(t, k) for t, k in zip(texts, kinds, strict=True) if k in added_kinds]
    add = inner.add_special_tokens if special else inner.add_tokens
    add([AddedToken(text, normalized=False, special=special) for text in added])
  _add_template(inner, fields, texts, kind)
  return inner


def _byte_pairs(
  path: Path, pre: str, texts: Sequence[str], kinds: Sequence[int], merges: Sequence[str]
) -> tokenizers.Tokenizer:
  """Return a byte-level BPE tokenizer, as in GPT-2."""
  if pre not in _WORDS:
    raise errors.UserError(f'{path}: tokenizer.ggml.pre: {errors.unknown("value", pre, _WORDS)}')
  words = _WORDS[pre]
  vocab = {t: i for i, (t, k) in enumerate(zip(texts, kinds, strict=True)) if k != _UNUSED}
  halves = (merge.partition(' ') for merge in merges)
  pairs = [(left, right) for left, _, right in halves]
  inner = tokenizers.Tokenizer(models.BPE(vocab, pairs, ignore_merges=words in _WHOLE_WORDS))
  byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words is None)
  if words is not None:
    split = pre_tokenizers.Split(Regex(words), 'isolated')
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
  elif pre == 'smollm':
    digits = pre_tokenizers.Digits(individual_digits=True)
    inner.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
  else:
    inner.pre_tokenizer = byte_level
  if words == _QWEN2:
    inner.normalizer = normalizers.NFC()
  inner.decoder = decoders.ByteLevel()
  return inner


def _sentence_pieces(
  texts: Sequence[str], kinds: Sequence[int], scores: Sequence[float], prefixed: bool
) -> tokenizers.Tokenizer:
  """Return a SentencePiece BPE tokenizer. Pairs are merged in order of their scores."""
  pieces = [_normalised(t, k) for t, k in zip(texts, kinds, strict=True)]
  vocab = {t: i for i, (t, k) in enumerate(zip(pieces, kinds, strict=True)) if k != _UNUSED}
  ids = {t: i for t, i in vocab.items() if kinds[i] in (_NORMAL, _USER)}
  merges = []
  for text, i in ids.items():
    for cut in range(1, len(text)):
      left, right = text[:cut], text[cut:]
      if left in ids and right in ids:
        merges.append((-scores[i], i, ids[left], ids[right], left, right))
  unknown = next((t for t, k in zip(pieces, kinds, strict=True) if k == _UNKNOWN), None)
  pairs = [(left, right) for *_, left, right in sorted(merges)]
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


def _normalised(text: str, kind: int) -> str:
  """Return a token after normalisation: user-defined runs of spaces become space marks."""
  return text.replace(' ', _SPACE) if kind == _USER and text and not text.strip(' ') else text


def _add_template(
  inner: tokenizers.Tokenizer, fields: Mapping[str, Any], texts: Sequence[str], kind: str
) -> None:
  """Add the begin and end tokens of the header to the tokenizer's template."""
  pre = fields.get('tokenizer.ggml.pre', 'default')
  defaults = {'bos': kind == 'llama' or _WORDS.get(pre) in _WHOLE_WORDS, 'eos': False}
  added = {}
  for name, default in defaults.items():
    number = fields.get(f'tokenizer.ggml.{name}_token_id')
    if number is not None and fields.get(f'tokenizer.ggml.add_{name}_token', default):
      added[name] = (texts[number], int(number))
  if not added:
    return
  parts = [added['bos'][0]] if 'bos' in added else []
  parts.append('$A')
  parts += [added['eos'][0]] if 'eos' in added else []
  template = processors.TemplateProcessing(
    single=' '.join(parts), special_tokens=list(added.values())
  )
  inner.post_processor = template
  if kind == 'gpt2':
    byte_level = processors.ByteLevel(trim_offsets=False)
    inner.post_processor = processors.Sequence([byte_level, template])
