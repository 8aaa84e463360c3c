"""Tokenizers that tfm does not reproduce: their models load, and their text is refused with the
reason.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError
from tfm.data.tokenizer.base import Vocabulary

_MOSES, _CHINESE = 'the rules of Moses (sacremoses)', 'a Chinese word splitter (jieba)'
_PAGE = 'words and their boxes on a page'
#: class -> the missing part.
REFUSED = {
  'BertJapaneseTokenizer': 'a Japanese word splitter (MeCab)',
  **dict.fromkeys(('BioGptTokenizer', 'FSMTTokenizer', 'FlaubertTokenizer', 'XLMTokenizer'), _MOSES),
  **dict.fromkeys(('CpmAntTokenizer', 'CpmTokenizer', 'RoFormerTokenizer'), _CHINESE),
  **dict.fromkeys(('LayoutLMv2Tokenizer', 'LayoutLMv3Tokenizer', 'LayoutXLMTokenizer', 'UdopTokenizer'), _PAGE),
  'MarkupLMTokenizer': 'nodes of a page and their paths',
  'TapasTokenizer': 'the cells of a table',
  # Of other kinds of model, or of few.
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
    'a reader of its own',
  ),
}  # fmt: skip


class RefusedVocabulary(Vocabulary):
  """Raises UserError, with the reason, for every text and every decoding.

  Args:
    name: The class of the tokenizer.
    folder: The folder it is in, for the error.
    base: The number of ids of the model.
    specials: The ids of special tokens that its config names.
  """

  kind: ClassVar[str] = 'refused'

  def __init__(self, name: str, folder: str, base: int, specials: dict[str, int] | None = None):
    super().__init__(base, specials)
    self.name, self.folder = name, folder

  @classmethod
  def of_config(cls, name: str, folder: str, model: Mapping[str, Any]) -> 'RefusedVocabulary':
    """Return the vocabulary of a folder, with the size and ids of its `config.json`."""
    sizes = [
      value for key, value in model.items() if key.endswith('vocab_size') and isinstance(value, int)
    ]
    named = {our: model.get(f'{our}_token_id') for our in ('bos', 'eos', 'pad')}
    return cls(
      name, folder, max(sizes, default=0), {n: i for n, i in named.items() if isinstance(i, int)}
    )

  def _refuse(self) -> NoReturn:
    raise UserError(
      f'{self.folder}: its tokenizer is a {self.name}, which needs {REFUSED[self.name]}, and tfm '
      f'has no such part. '
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
    return cls(state['class'], state['folder'], state['base'], state['specials'])
