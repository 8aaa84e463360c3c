"""Mistral's `tekken.json`: special tokens, then byte pairs by rank."""

import base64
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from tfm.core import errors
from tfm.data.tokenizer.limits import check_count
from tfm.data.tokenizer.published.folder import read_json
from tfm.data.tokenizer.published.tiktoken import merges_of_ranks, printable


def read(path: Path) -> tokenizers.Tokenizer:
  """Return the tokenizer of a `tekken.json`.

  Raises:
    UserError: The file is of the first version, which lists no special tokens.
  """
  layout = read_json(path)
  if layout.get('special_tokens') is None:
    raise errors.UserError(
      f'{path}: lists no special tokens. Expected a newer file, or the tokenizer.json of the same '
      f'model.'
    )
  config = layout['config']
  entries = sorted(layout['special_tokens'], key=lambda entry: entry['rank'])
  special = [str(entry['token_str']) for entry in entries]
  count = config.get('default_num_special_tokens') or len(special)
  check_count(str(path), 'default_num_special_tokens', count)
  special += [f'<SPECIAL_{i}>' for i in range(len(special), count)]
  # The file may have more tokens than the model.
  size = config.get('default_vocab_size')
  kept = layout['vocab'] if size is None else layout['vocab'][: size - count]
  ranks = {base64.b64decode(entry['token_bytes']): rank for rank, entry in enumerate(kept)}
  vocab = {printable(token): rank + count for token, rank in ranks.items()}
  vocab |= {text: i for i, text in enumerate(special)}
  inner = tokenizers.Tokenizer(
    models.BPE(vocab, merges_of_ranks(ranks), fuse_unk=False, ignore_merges=True)
  )
  split = pre_tokenizers.Split(tokenizers.Regex(config['pattern']), 'isolated')
  inner.pre_tokenizer = pre_tokenizers.Sequence(
    [split, pre_tokenizers.ByteLevel(False, use_regex=False)]
  )
  inner.decoder = decoders.ByteLevel()
  inner.add_special_tokens([AddedToken(text, special=True) for text in special])
  inner.post_processor = processors.ByteLevel(trim_offsets=False)
  return inner
