"""Load models from GGUF files (llama.cpp, Ollama, LM Studio).

Supported are Llama, Mistral, Mixtral, Qwen 2 and 3 and Gemma 1 to 3, with tokenizer and chat
template.
"""

import functools
import json
from pathlib import Path
from typing import Any

from jax.typing import DTypeLike

from tfm.core import errors
from tfm.data.tokenizer import Vocabulary
from tfm.data.tokenizer.file import FileVocabulary
from tfm.hub.gguf.config import hugging_face_config
from tfm.hub.gguf.names import to_hugging_face
from tfm.hub.gguf.reader import find_file as find_file
from tfm.hub.gguf.reader import open_files
from tfm.hub.gguf.vocabulary import build_tokenizer
from tfm.hub.tensors import Tensors


class Gguf:
  """A GGUF file, converted to the parts of a published folder.

  Attributes:
    path: The file.
    fields: The values of the header by name.
    config: The fields of the equivalent config.json.

  Raises:
    UserError: The file is damaged, or its architecture or a tensor type is not supported.
  """

  def __init__(self, path: Path):
    self.path = path
    self.fields, self._infos = open_files(path)
    self.config = hugging_face_config(path, self.fields, self._infos)

  def tensors(self, dtype: DTypeLike | None = None) -> Tensors:
    """Return the tensors under their Hugging Face names, dequantized on access.

    Args:
      dtype: The dtype of all tensors. By default the stored dtype of float tensors, and bfloat16
        for quantized tensors.
    """
    return to_hugging_face(self._infos, self.fields['general.architecture'], self.config, dtype)

  @functools.cached_property
  def vocabulary(self) -> Vocabulary | None:
    """The tokenizer, None if the file has none."""
    try:
      inner = build_tokenizer(self.path, self.fields, self.fields['general.architecture'])
    except errors.UserError:
      raise
    except Exception as error:
      raise errors.UserError(
        f'{self.path}: the tokenizer cannot be read: {error}. Expected a complete tokenizer.'
      ) from error
    if inner is None:
      return None
    found = FileVocabulary(inner, framed=True)
    return found.with_specials([n for n in ('eos', 'pad', 'mask') if found.has_special(n)])

  @property
  def chat_template(self) -> str | dict[str, str] | None:
    """The chat template, or a map from names to templates if the file has several."""
    name = 'tokenizer.chat_template'
    default = self.fields.get(name)
    named = {}
    for field, template in self.fields.items():
      if field.startswith(f'{name}.'):
        named[field.removeprefix(f'{name}.')] = template
    if not named:
      return default
    return {'default': default, **named} if default else named

  @property
  def files(self) -> dict[str, bytes]:
    """The JSON files of the equivalent published folder by name, without tokenizer.json."""
    tokens = {n: v for n, v in self.config.items() if n.endswith('_token_id')}
    texts = self.fields.get('tokenizer.ggml.tokens', [])
    special: dict[str, Any] = {}
    for name, ids in tokens.items():
      first = ids[0] if isinstance(ids, list) else ids
      if first < len(texts):
        special[name.removesuffix('_id')] = texts[first]
    if isinstance(template := self.chat_template, dict):
      special['chat_template'] = [{'name': n, 'template': t} for n, t in template.items()]
    elif template is not None:
      special['chat_template'] = template
    files = {
      'config.json': self.config,
      'generation_config.json': tokens,
      'tokenizer_config.json': special,
    }
    encode = lambda values: json.dumps(values, indent=2, ensure_ascii=False).encode()
    return {name: encode(values) for name, values in files.items()}
