"""SentencePiece models for the generic class, which has no recipe."""

from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers

from tfm.data.tokenizer.published.pieces import Pieces
from tfm.data.tokenizer.published.recipe import Draft


def build(draft: Draft, pieces: Pieces) -> tokenizers.Tokenizer:
  """Return the tokenizer of a SentencePiece model, and set the special tokens that it names."""
  trainer = pieces.proto.trainer_spec
  vocab = draft.vocab
  fallback = trainer.byte_fallback
  if isinstance(vocab, dict):
    _rename(vocab, draft.fields['added_tokens_decoder'])
    model: Any = models.BPE(
      vocab, draft.merges, unk_token=trainer.unk_piece, fuse_unk=True, byte_fallback=fallback
    )
  else:
    model = models.Unigram(vocab, trainer.unk_id, fallback)
  inner = tokenizers.Tokenizer(model)
  before = [normalizers.Precompiled(pieces.charsmap)] if pieces.charsmap else []
  inner.normalizer = normalizers.Sequence([*before, normalizers.Replace(' ', '▁')])
  steps: list[Any] = [decoders.Replace('▁', ' ')]
  if fallback:
    steps += [decoders.ByteFallback(), decoders.Fuse()]
  inner.decoder = decoders.Sequence(steps)
  for name in ('bos', 'eos', 'unk'):
    if getattr(trainer, f'{name}_id') >= 0:
      draft.fields.setdefault(f'{name}_token', getattr(trainer, f'{name}_piece'))
  return inner


def _rename(vocab: dict[str, int], added: dict[int, Any]) -> None:
  """Rename placeholder pieces to the added tokens with their ids."""
  texts = {number: text for text, number in vocab.items()}
  for number, token in added.items():
    new, old = str(token), texts.get(number)
    if old and old != new and new not in vocab:
      vocab[new] = vocab.pop(old)
      texts[number] = new
