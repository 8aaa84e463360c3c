"""Tokenizers that tfm does not reproduce: their models load, and their text is refused with the reason."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError
from tfm.data.tokenizer.base import Vocabulary

_MOSES, _CHINESE = 'the rules of Moses (sacremoses)', 'a Chinese word splitter (jieba)'
#: class -> what it needs that tfm lacks.
REFUSED = {
  'BertJapaneseTokenizer': 'a Japanese word splitter (MeCab)',
  'BertweetTokenizer': 'the rules of NLTK for tweets',
  'BioGptTokenizer': _MOSES,
  'CanineTokenizer': 'a reader of its own',
  'CpmAntTokenizer': _CHINESE,
  'CpmTokenizer': _CHINESE,
  'FSMTTokenizer': _MOSES,
  'FlaubertTokenizer': _MOSES,
  'LayoutLMv2Tokenizer': 'words and their boxes on a page',
  'LayoutLMv3Tokenizer': 'words and their boxes on a page',
  'LayoutXLMTokenizer': 'words and their boxes on a page',
  'MLukeTokenizer': 'a reader of its own',
  'MarkupLMTokenizer': 'nodes of a page and their paths',
  'MyT5Tokenizer': 'a reader of its own',
  'PerceiverTokenizer': 'a reader of its own',
  'PhobertTokenizer': 'a Vietnamese word splitter (VnCoreNLP)',
  'RoCBertTokenizer': 'a reader of its own',
  'RoFormerTokenizer': _CHINESE,
  'SeamlessM4TTokenizer': 'a reader of its own',
  'Speech2TextTokenizer': 'a reader of its own',
  'SpeechT5Tokenizer': 'a reader of its own',
  'TapasTokenizer': 'the cells of a table',
  'UdopTokenizer': 'words and their boxes on a page',
  'XLMTokenizer': _MOSES,
}


class RefusedVocabulary(Vocabulary):
  """Raises UserError, with the reason, for every text and id."""

  kind: ClassVar[str] = 'refused'

  def __init__(self, name: str, folder: str):
    super().__init__(0)
    self.name, self.folder = name, folder

  def _refuse(self) -> NoReturn:
    raise UserError(
      f'{self.folder}: its tokenizer is a {self.name}, which needs {REFUSED[self.name]}, and tfm has no such part. '
      'Expected token ids instead of text: encode and decode with transformers.'
    )

  def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    self._refuse()

  def prompt(self, text: str, framed: bool = True) -> NDArray[np.int32]:
    self._refuse()

  def decode(self, ids: Iterable[int]) -> str:
    self._refuse()

  def token_bytes(self) -> None:
    return None

  def state(self) -> dict[str, Any]:
    return {'class': self.name, 'folder': self.folder}

  @classmethod
  def from_state(cls, state: dict[str, Any]) -> 'RefusedVocabulary':
    return cls(state['class'], state['folder'])
