"""The tokenizer of a published folder, in whichever of the usual files."""

from collections.abc import Callable
import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from tfm.core import errors
from tfm.data.tokenizer import Vocabulary
from tfm.data.tokenizer.file import FileVocabulary
from tfm.hub.sentencepiece import Pieces, read_pieces, tokenizer_of


def find_vocabulary(folder: Path) -> Vocabulary | None:
  """The tokenizer whose files stand in the folder, or None if none do.

  They are `tokenizer.json`; `source.spm` and `vocab.json` (Marian, the source's side); a SentencePiece model;
  `vocab.json` and `merges.txt` (byte pairs, GPT-2's); or `vocab.txt` (WordPiece, BERT's); the first of these that is
  there. Tokens that `added_tokens.json` or `tokenizer_config.json` add to the last four have the ids that those say.

  Raises: UserError for files that cannot be read.
  """
  for names, read in _READERS.items():
    if all((folder / name).is_file() for name in names):
      path = folder / names[0]
      try:
        inner = read(path)
        if names != ('tokenizer.json',):
          _add(inner, folder)
          _frame(inner, folder, names[0])
      except errors.UserError:
        raise
      except Exception as error:
        raise errors.UserError(f'{path}: is not a tokenizer that can be read: {error}.') from error
      found = FileVocabulary(inner, framed=True)
      return found.with_specials([n for n in ('eos', 'pad', 'mask') if found.finds(n)])
  return None


def _file(path: Path) -> tokenizers.Tokenizer:
  return tokenizers.Tokenizer.from_file(str(path))


def _byte_pairs(path: Path) -> tokenizers.Tokenizer:
  """GPT-2's: bytes in printable guise, merged in the order of `merges.txt`."""
  prefixed = _config(path.parent).get('add_prefix_space', False)
  inner = tokenizers.Tokenizer(models.BPE.from_file(str(path), str(path.parent / 'merges.txt')))
  inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefixed)
  inner.decoder = decoders.ByteLevel()
  return inner


def _word_pieces(path: Path) -> tokenizers.Tokenizer:
  """BERT's: words and marks apart, lower case without accents unless the config says otherwise."""
  config = _config(path.parent)
  unknown, lower = _text(config.get('unk_token', '[UNK]')), config.get('do_lower_case', True)
  inner = tokenizers.Tokenizer(models.WordPiece.from_file(str(path), unk_token=unknown))
  accents, chinese = config.get('strip_accents'), config.get('tokenize_chinese_chars', True)
  inner.normalizer = normalizers.BertNormalizer(True, chinese, accents, lower)
  inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  inner.decoder = decoders.WordPiece()
  named = [_text(config.get(f'{n}_token', f'[{n.upper()}]')) for n in ('unk', 'sep', 'pad', 'cls', 'mask')]
  inner.add_special_tokens([t for t in named if inner.token_to_id(t) is not None])
  return inner


def _pieces(path: Path) -> tokenizers.Tokenizer:
  """SentencePiece's, with ids as they stand, or as fairseq has them (XLM-R, mBART, CamemBERT)."""
  found = read_pieces(path)
  kind = _json(path.parent / 'config.json').get('model_type')
  if kind in _FAIRSEQ:
    return _fairseq(found, kind)
  if path.name == 'sentencepiece.bpe.model' and (path.parent / 'vocab.json').is_file():
    return tokenizer_of(found, _json(path.parent / 'vocab.json'))
  inner = tokenizer_of(found)
  config = _config(path.parent)
  extra = config.get('extra_ids', 100 if kind in ('t5', 'longt5', 'switch_transformers') else 0)
  inner.add_special_tokens([f'<extra_id_{i}>' for i in reversed(range(extra))])
  return inner


#: The specials that stand first, and how many of the model's own pieces then are left out.
_XLM_R = ('<s>', '<pad>', '</s>', '<unk>'), 3
_FAIRSEQ = {
  'xlm-roberta': _XLM_R, 'xlm-roberta-xl': _XLM_R, 'mbart': _XLM_R,
  # Its dictionary had four specials, and then the model's own again: <s> and </s> are those, 5 and 6.
  'camembert': (('<s>NOTUSED', '<pad>', '</s>NOTUSED', '<unk>', '<unk>NOTUSED'), 1),
}  # fmt: skip


def _fairseq(found: Pieces, kind: str) -> tokenizers.Tokenizer:
  """Some specials first, then the model's pieces in their order, and the mask behind them."""
  first, left_out = _FAIRSEQ[kind]
  rest = [p.text for p in found.pieces[left_out:]]
  inner = tokenizer_of(found, {text: i for i, text in enumerate([*first, *rest])})
  inner.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in first])
  if kind != 'mbart':  # which has its languages between
    inner.add_special_tokens([AddedToken('<mask>', lstrip=True, normalized=False, special=True)])
  return inner


def _marian(path: Path) -> tokenizers.Tokenizer:
  return tokenizer_of(read_pieces(path), _json(path.parent / 'vocab.json'))


def _add(inner: tokenizers.Tokenizer, folder: Path) -> None:
  """Tokens that the folder adds to the model's, each where it says.

  Raises: UserError for one that would stand elsewhere.
  """
  wanted: dict[str, int] = dict(_json(folder / 'added_tokens.json'))
  ordinary = set(wanted)
  for number, token in _config(folder).get('added_tokens_decoder', {}).items():
    wanted[token['content']] = int(number)
    ordinary -= {token['content']} if token.get('special') else set()
  for text, number in sorted(wanted.items(), key=lambda item: item[1]):
    new = AddedToken(text, normalized=False, special=text not in ordinary)
    (inner.add_tokens if text in ordinary else inner.add_special_tokens)([new])
    if inner.token_to_id(text) != number:
      raise errors.UserError(
        f'{folder}: the added token {text!r} is said to be {number}, and comes to stand at {inner.token_to_id(text)}. '
        'Wanted ids that follow the model.'
      )


def _frame(inner: tokenizers.Tokenizer, folder: Path, name: str) -> None:
  """Says which special tokens stand around a text, as the classes of transformers for these files do."""
  kind, config = _json(folder / 'config.json').get('model_type', ''), _config(folder)
  if name == 'vocab.txt':
    around = '[CLS]', '[SEP]'
  elif kind in ('xlm-roberta', 'camembert', 'roberta') or (name == 'vocab.json' and kind in ('bart', 'longformer')):
    around = '<s>', '</s>'
  elif name in ('spiece.model', 'source.spm') and kind != 'albert' and kind != 'xlnet':
    around = '', '</s>'
  elif name == 'tokenizer.model':
    around = ('<s>' if config.get('add_bos_token', True) else ''), ('</s>' if config.get('add_eos_token') else '')
    around = _text(config.get('bos_token', around[0])) if around[0] else '', around[1]
  else:
    return
  tokens = [(text, inner.token_to_id(text)) for text in around if text]
  if all(number is not None for _, number in tokens):
    template = ' '.join(part for part in (around[0], '$A', around[1]) if part)
    inner.post_processor = processors.TemplateProcessing(single=template, special_tokens=tokens)


def _config(folder: Path) -> dict[str, Any]:
  return _json(folder / 'tokenizer_config.json')


def _json(path: Path) -> dict[str, Any]:
  return json.loads(path.read_text('utf-8')) if path.is_file() else {}


def _text(token: Any) -> str:
  return token['content'] if isinstance(token, dict) else token


_READERS: dict[tuple[str, ...], Callable[[Path], tokenizers.Tokenizer]] = {
  ('tokenizer.json',): _file,
  ('source.spm', 'vocab.json'): _marian,
  ('spiece.model',): _pieces,
  ('sentencepiece.bpe.model',): _pieces,
  ('tokenizer.model',): _pieces,
  ('vocab.json', 'merges.txt'): _byte_pairs,
  ('vocab.txt',): _word_pieces,
}
