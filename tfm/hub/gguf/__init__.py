"""Models in GGUF files (llama.cpp, Ollama, LM Studio), read like a published folder.

Llama and Mistral, Qwen 2 and 3, and Gemma 1 to 3 are read, with the tokenizer and the chat template
inside."""

import functools
import json
from pathlib import Path
from typing import Any

from tfm.core import errors
from tfm.data.tokenizer import Vocabulary
from tfm.data.tokenizer.file import FileVocabulary
from tfm.hub.gguf.config import config_of
from tfm.hub.gguf.names import hugging_face
from tfm.hub.gguf.reader import find_file as find_file
from tfm.hub.gguf.reader import open_files
from tfm.hub.gguf.vocabulary import build
from tfm.hub.tensors import Tensors


class Gguf:
  """A GGUF file as the parts of a published folder.

  Attributes:
    path: the file.
    config: the values of its config.json.

  Raises:
    UserError: the file is damaged, or its architecture, a tensor type or its tokenizer is not read.
  """

  def __init__(self, path: Path):
    self.path = path
    self.fields, self._found = open_files(path)
    self.config = config_of(path, self.fields, self._found)

  def tensors(self, dtype: Any | None = None) -> Tensors:
    """Return the tensors under their Hugging Face names. Reading a tensor dequantizes it.

    Args:
      dtype: of every tensor. None keeps the stored dtype of float tensors; quantized tensors become
      bfloat16.
    """
    return hugging_face(self._found, self.fields['general.architecture'], self.config, dtype)

  @functools.cached_property
  def vocabulary(self) -> Vocabulary | None:
    """The tokenizer, or None if the file has none."""
    try:
      inner = build(self.path, self.fields, self.fields['general.architecture'])
    except errors.UserError:
      raise
    except Exception as error:
      raise errors.UserError(
        f'{self.path}: has a tokenizer that cannot be read: {error}. Expected a whole one.'
      ) from error
    if inner is None:
      return None
    found = FileVocabulary(inner, framed=True)
    return found.with_specials([n for n in ('eos', 'pad', 'mask') if found.has_special(n)])

  @property
  def chat_template(self) -> str | dict[str, str] | None:
    """The chat template; several by name, where the file has more than the default one."""
    name = 'tokenizer.chat_template'
    named = {
      n.removeprefix(f'{name}.'): t for n, t in self.fields.items() if n.startswith(f'{name}.')
    }
    default = self.fields.get(name)
    return default if not named else {**({'default': default} if default else {}), **named}

  @property
  def files(self) -> dict[str, bytes]:
    """The JSON files of the published folder that the file stands for, by name, without the
    tokenizer.json.
    """
    tokens = {n: v for n, v in self.config.items() if n.endswith('_token_id')}
    texts = self.fields.get('tokenizer.ggml.tokens', [])
    first = {n: v[0] if isinstance(v, list) else v for n, v in tokens.items()}
    special: dict[str, Any] = {
      n.removesuffix('_id'): texts[v] for n, v in first.items() if v < len(texts)
    }
    if isinstance(template := self.chat_template, dict):
      special['chat_template'] = [{'name': n, 'template': t} for n, t in template.items()]
    elif template is not None:
      special['chat_template'] = template
    found = {
      'config.json': self.config,
      'generation_config.json': tokens,
      'tokenizer_config.json': special,
    }
    return {
      name: json.dumps(values, indent=2, ensure_ascii=False).encode()
      for name, values in found.items()
    }
