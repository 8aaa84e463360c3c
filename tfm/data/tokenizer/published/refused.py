"""Tokenizers that tfm does not support: their models load, but text is an error."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError
from tfm.data.tokenizer.base import Vocabulary

_MOSES, _CHINESE = 'the rules of Moses (sacremoses)', 'a Chinese word splitter (jieba)'
_PAGE = 'words and their boxes on a page'
_LAYOUTS = (
  'LayoutLMv2Tokenizer', 'LayoutLMv3Tokenizer', 'LayoutXLMTokenizer', 'UdopTokenizer',
)  # fmt: skip
#: class -> the missing part.
REFUSED = {
  'BertJapaneseTokenizer': 'a Japanese word splitter (MeCab)',
  **dict.fromkeys(
    ('BioGptTokenizer', 'FSMTTokenizer', 'FlaubertTokenizer', 'XLMTokenizer'), _MOSES
  ),
  **dict.fromkeys(('CpmAntTokenizer', 'CpmTokenizer', 'RoFormerTokenizer'), _CHINESE),
  **dict.fromkeys(_LAYOUTS, _PAGE),
  'MarkupLMTokenizer': 'nodes of a page and their paths',
  'TapasTokenizer': 'the cells of a table',
  # Classes of other kinds of models, or of rare models.
  **dict.fromkeys(
    (
      'BartphoTokenizer', 'CanineTokenizer', 'ClvpTokenizer', 'DiaTokenizer', 'EsmcTokenizer',
      'FastSpeech2ConformerTokenizer', 'LasrTokenizer', 'MLukeTokenizer', 'MgpstrTokenizer',
      'MyT5Tokenizer',
      'NougatTokenizer', 'ParakeetTokenizer', 'PerceiverTokenizer', 'Pop2PianoTokenizer',
      'RagTokenizer',
      'RoCBertTokenizer', 'SeamlessM4TTokenizer', 'Speech2TextTokenizer', 'SpeechT5Tokenizer',
      'Tipsv2Tokenizer',
      'VideoPrismTokenizer', 'VitsTokenizer', 'Wav2Vec2CTCTokenizer', 'Wav2Vec2PhonemeCTCTokenizer',
    ),
    'a special reader',
  ),
}  # fmt: skip


class RefusedVocabulary(Vocabulary):
  """Raises UserError with the reason for every text and every decoding.

  Args:
    name: The class of the tokenizer.
    folder: Its folder, for the error.
    base: The number of ids of the model.
    specials: The ids of the special tokens in its config.
  """

  kind: ClassVar[str] = 'refused'

  def __init__(self, name: str, folder: str, base: int, specials: dict[str, int] | None = None):
    super().__init__(base, specials)
    self.name, self.folder = name, folder

  @classmethod
  def of_config(cls, name: str, folder: str, model: Mapping[str, Any]) -> 'RefusedVocabulary':
    """Return the vocabulary of a folder, with the size and ids of its `config.json`.

    Args:
      name: The class of the tokenizer.
      folder: Its folder, for the error.
      model: The content of `config.json`.

    Returns:
      The vocabulary.
    """
    base = 0
    for key, value in model.items():
      if key.endswith('vocab_size') and isinstance(value, int):
        base = max(base, value)
    ids = {role: model.get(f'{role}_token_id') for role in ('bos', 'eos', 'pad')}
    specials = {role: number for role, number in ids.items() if isinstance(number, int)}
    return cls(name, folder, base, specials)

  def _refuse(self) -> NoReturn:
    raise UserError(
      f'{self.folder}: its tokenizer is a {self.name}, which needs {REFUSED[self.name]}. tfm does '
      'not support it. Expected token ids instead of text, encoded and decoded with transformers.'
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
    return cls(state['class'], state['folder'], state['base'], state['specials'])
