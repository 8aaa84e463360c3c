"""Tokenizers over SentencePiece models: Marian, M2M-100, PLBART, GPT-SW3, SigLIP and others."""

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
import re
import string
from typing import Any, ClassVar
import unicodedata

from tokenizers import AddedToken

from tfm.core import errors
from tfm.data.tokenizer.published.languages import M2M100, WMT21
from tfm.data.tokenizer.published.splitter import Splitter, end

_SPACE = '▁'


def load_model(path: Path, dummy_prefix: bool = True) -> Any:
  """Return the processor of a SentencePiece model, with or without a space before a text."""
  import sentencepiece

  processor = sentencepiece.SentencePieceProcessor()
  processor.Load(str(path))
  if not dummy_prefix:
    from sentencepiece import sentencepiece_model_pb2

    protos: Any = sentencepiece_model_pb2
    proto = protos.ModelProto.FromString(processor.serialized_model_proto())
    proto.normalizer_spec.add_dummy_prefix = False
    processor.LoadFromSerializedProto(proto.SerializeToString())
  return processor


class Sentence(Splitter):
  """The pieces of a SentencePiece model, with their ids."""

  files: ClassVar[tuple[str, ...]] = ('spiece.model',)
  pieces = True
  tokens: ClassVar[Mapping[str, Any]] = {
    'bos_token': '<s>', 'eos_token': '</s>', 'unk_token': '<unk>', 'pad_token': '<pad>',
    'sep_token': '<::::>',
  }  # fmt: skip

  def __init__(self, folder: Path, fields: dict[str, Any]):
    super().__init__(folder, fields)
    self.legacy = fields.get('legacy', True)
    self.model = load_model(folder / self.files[0], self.legacy)

  def vocab(self) -> dict[str, int]:
    return {self.model.IdToPiece(i): i for i in range(self.model.get_piece_size())}

  def first_new(self, added: Mapping[int, AddedToken]) -> int:
    # An added token replaces the piece with its id.
    pieces = {text for text, i in self.vocab().items() if i not in added}
    return len(pieces.union(token.content for token in added.values()))

  def split(self, text: str) -> list[str]:
    if self.legacy or not text.startswith((_SPACE, ' ')):
      return self.model.encode(text, out_type=str)
    return self.behind_unknown(text)

  def behind_unknown(self, text: str) -> list[str]:
    """Return the pieces of a text that continues another: its first space stays."""
    tokens = self.model.encode(self.unknown + text, out_type=str)
    before = len(self.model.encode(self.unknown))
    return tokens[before:] if len(tokens) >= before else tokens

  def number(self, token: str) -> int:
    return self.model.piece_to_id(token)

  def token(self, number: int) -> str:
    return self.model.IdToPiece(number)

  def join(self, tokens: Sequence[str], special: frozenset[str]) -> str:
    del special
    return ''.join(tokens).replace(_SPACE, ' ').strip()

  def runs(
    self, tokens: Sequence[str], special: frozenset[str], before: str = '', after: str = ''
  ) -> str:
    """Return the text of tokens, with special tokens verbatim.

    Args:
      tokens: The tokens.
      special: The special tokens.
      before: The text before a run of special tokens.
      after: The text after each special token.

    Returns:
      The text.
    """
    text, after_special = '', False
    run: list[str] = []
    for token in tokens:
      if token in special:
        text += ('' if after_special else before) + self.model.decode(run) + token + after
        run, after_special = [], True
      else:
        run.append(token)
        after_special = False
    return text + self.model.decode(run)


class GptSw3(Sentence):
  """GPT-SW3: white space becomes a space, and invisible characters are left out."""

  tokens = {'unk_token': '<unk>', 'eos_token': '<|endoftext|>'}
  _spaces = re.compile('[\u2002\u2003\u2005\u2008\u2009\u200a\u202f\u3000\ufffc]')
  _hidden = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\xa0\xad\u200b]')

  def __init__(self, folder: Path, fields: dict[str, Any]):
    shared = 'gpt-sw3-7b' in str(folder)
    fields.setdefault('pad_token', None)
    fields.setdefault('bos_token', None)
    if fields['pad_token'] is None:
      fields['pad_token'] = fields['unk_token'] if shared else '<pad>'
    if fields['bos_token'] is None:
      fields['bos_token'] = fields['eos_token'] if shared else '<s>'
    super().__init__(folder, fields)

  def split(self, text: str) -> list[str]:
    text = self._spaces.sub(' ', self._hidden.sub('', text))
    return self.model.encode(unicodedata.normalize('NFC', text), out_type=str)

  def join(self, tokens: Sequence[str], special: frozenset[str]) -> str:
    return self.runs(tokens, special, before=' ')


class Siglip(Sentence):
  """SigLIP: lower case, no punctuation, single spaces."""

  tokens = {'eos_token': '</s>', 'unk_token': '<unk>', 'pad_token': '</s>'}

  def prepare(self, text: str) -> str:
    return _SPACE + text.replace(_SPACE, ' ')

  def split(self, text: str) -> list[str]:
    if self.fields.get('do_lower_case', True):
      text = text.lower()
    text = text.translate(str.maketrans('', '', string.punctuation))
    return self.behind_unknown(re.sub(r'\s+', ' ', text).strip())

  def tidy(self, tokens: list[str], special: frozenset[str]) -> list[str]:
    starts_special = len(tokens) > 1 and tokens[0] == _SPACE and tokens[1] in special
    return tokens[1:] if starts_special else tokens

  def join(self, tokens: Sequence[str], special: frozenset[str]) -> str:
    return self.runs(tokens, special, before=' ').strip()

  def frame(self, ids: list[int], named: Mapping[str, int]) -> list[int]:
    return end(ids, named)


class PlBart(Sentence):
  """PLBART: fairseq's four special tokens, then pieces, then programming languages."""

  files = ('sentencepiece.bpe.model',)
  language = 'src_lang'
  tokens = {
    'bos_token': '<s>', 'eos_token': '</s>', 'sep_token': '</s>', 'cls_token': '<s>',
    'unk_token': '<unk>',
    'pad_token': '<pad>', 'mask_token': '<mask>', 'clean_up_tokenization_spaces': True,
  }  # fmt: skip
  _base = ('java', 'python', 'en_XX')
  _more = ('javascript', 'php', 'ruby', 'go')

  def __init__(self, folder: Path, fields: dict[str, Any]):
    fields.setdefault('language_codes', 'base')
    base = fields['language_codes'] == 'base'
    codes = self._base if base else (*self._base, *self._more)
    languages = [f'__{code}__' for code in codes]
    known = fields.get('additional_special_tokens') or []
    others = [token for token in known if str(token) not in languages]
    fields['additional_special_tokens'] = [*languages, *others]
    super().__init__(folder, fields)
    size = self.model.get_piece_size()
    self.special_ids = {'<s>': 0, '<pad>': 1, '</s>': 2, '<unk>': 3}
    self.special_ids |= {code: size + 1 + i for i, code in enumerate(languages)}
    if base:
      self.special_ids['<mask>'] = size + 1 + len(languages)
    self.texts = {number: text for text, number in self.special_ids.items()}
    code = fields.get('src_lang') or (None if base else '__en_XX__')
    self.code = f'__{code}__' if code in (*self._base, *self._more) else code
    if self.code is not None and self.code not in languages:
      raise errors.UserError(f'{folder}: src_lang: {errors.unknown("language", code, languages)}')

  def size(self) -> int:
    return max([self.model.get_piece_size(), *self.texts]) + 1

  def first_new(self, added: Mapping[int, AddedToken]) -> int:
    texts = (token.content for token in added.values())
    return len({*self.vocab(), '<s>', '<pad>', '</s>', '<unk>', *texts})

  def number(self, token: str) -> int:
    if token in self.special_ids:
      return self.special_ids[token]
    piece = self.model.piece_to_id(token)
    return piece + 1 if piece else self.special_ids['<unk>']

  def token(self, number: int) -> str:
    return self.texts[number] if number in self.texts else self.model.IdToPiece(number - 1)

  def mend(self, added: dict[int, AddedToken]) -> None:
    for number, token in list(added.items()):
      if token.content in self.special_ids or token.content == '<mask>':
        del added[number]

  def frame(self, ids: list[int], named: Mapping[str, int]) -> list[int]:
    after = [] if self.code is None else [self.special_ids[self.code]]
    return [*ids, named['eos_token'], *after]


class Numbered(Sentence):
  """Pieces with ids from `vocab.json`."""

  pieces = False

  def __init__(self, folder: Path, fields: dict[str, Any]):
    # These classes ignore the setting, which would leave out the space before a text.
    super().__init__(folder, {**fields, 'legacy': True})
    self.fields = fields
    self.numbers = json.loads((folder / 'vocab.json').read_text('utf-8'))

  def vocab(self) -> dict[str, int]:
    return self.numbers

  def first_new(self, added: Mapping[int, AddedToken]) -> int:
    return len({*self.numbers, *(token.content for token in added.values())})


class M2M100Splitter(Numbered):
  """M2M-100: pieces with ids from `vocab.json`, then the languages."""

  files = ('sentencepiece.bpe.model', 'vocab.json')
  language = 'src_lang'
  tokens = {
    'bos_token': '<s>', 'eos_token': '</s>', 'sep_token': '</s>', 'pad_token': '<pad>',
    'unk_token': '<unk>',
  }  # fmt: skip

  def __init__(self, folder: Path, fields: dict[str, Any]):
    super().__init__(folder, fields)
    codes = {'m2m100': M2M100, 'wmt21': WMT21}[fields.get('language_codes', 'm2m100')]
    self.codes = {f'__{code}__': len(self.numbers) + i for i, code in enumerate(codes)}
    self.texts = {number: text for text, number in {**self.numbers, **self.codes}.items()}
    self.code = f'__{fields.get("src_lang") or "en"}__'
    if self.code not in self.codes:
      raise errors.UserError(
        f'{folder}: src_lang: {errors.unknown("language", fields["src_lang"], codes)}'
      )

  def size(self) -> int:
    return len(self.numbers) + len(self.codes)

  def split(self, text: str) -> list[str]:
    return self.model.encode(text, out_type=str)

  def number(self, token: str) -> int:
    unknown = self.numbers[self.unknown]
    return self.codes[token] if token in self.codes else self.numbers.get(token, unknown)

  def token(self, number: int) -> str:
    return self.texts.get(number, self.unknown)

  def join(self, tokens: Sequence[str], special: frozenset[str]) -> str:
    return self.runs(tokens, special).strip()

  def frame(self, ids: list[int], named: Mapping[str, int]) -> list[int]:
    return [self.codes[self.code], *ids, named['eos_token']]


class Marian(Numbered):
  """Marian: the source model splits text, and `vocab.json` has the ids.

  `>>code<<` before a text is a language.
  """

  files = ('source.spm', 'target.spm', 'vocab.json')
  optional = ('target_vocab.json',)
  tokens = {'unk_token': '<unk>', 'eos_token': '</s>', 'pad_token': '<pad>'}

  def __init__(self, folder: Path, fields: dict[str, Any]):
    super().__init__(folder, fields)
    decoded = self.numbers
    if fields.get('separate_vocabs'):
      decoded = json.loads((folder / 'target_vocab.json').read_text('utf-8'))
      self.joined = load_model(folder / 'target.spm')
    else:
      self.joined = self.model
    self.texts = {number: text for text, number in decoded.items()}

  def split(self, text: str) -> list[str]:
    language = re.match('>>.*?<<', text, re.DOTALL)
    if language is None:
      return self.model.encode(text, out_type=str)
    return [language.group(), *self.model.encode(text[language.end() :], out_type=str)]

  def number(self, token: str) -> int:
    return self.numbers.get(token, self.numbers[self.unknown])

  def token(self, number: int) -> str:
    if number in self.texts:
      return self.texts[number]
    return self.joined.IdToPiece(number) or self.unknown

  def join(self, tokens: Sequence[str], special: frozenset[str]) -> str:
    text = ''
    run: list[str] = []
    for token in tokens:
      if token in special:
        text, run = text + self.joined.decode_pieces(run) + token + ' ', []
      else:
        run.append(token)
    return (text + self.joined.decode_pieces(run)).replace(_SPACE, ' ').strip()

  def frame(self, ids: list[int], named: Mapping[str, int]) -> list[int]:
    return [*ids, named['eos_token']]


SPLITTERS: dict[str, type[Splitter]] = {
  'BertGenerationTokenizer': Sentence,
  'GPTSw3Tokenizer': GptSw3,
  'SiglipTokenizer': Siglip,
  'PLBartTokenizer': PlBart,
  'M2M100Tokenizer': M2M100Splitter,
  'MarianTokenizer': Marian,
}
