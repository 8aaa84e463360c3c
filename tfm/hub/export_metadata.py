"""Config fields and files that an export keeps from the loaded folder."""

from collections.abc import Iterator, Mapping
import dataclasses
import json
from pathlib import Path
from typing import Any

from tfm.core import errors
from tfm.data.tokenizer import Vocabulary
from tfm.data.tokenizer.file import FileVocabulary
from tfm.hub.files import CONFIG, GENERATION, TOKENIZER, FolderFiles, without_ids
from tfm.hub.spec_equivalence import flattened, normalised
from tfm.hub.vocabulary import find_vocabulary
from tfm.model.spec import Model
from tfm.zoo.bookkeeping import SILENT
from tfm.zoo.weights import Published, published

#: Config fields about the stored weights or the writing program instead of the model.
_STORAGE_FIELDS = {
  'dtype', 'torch_dtype', 'quantization_config', 'quantization', 'transformers_version',
  'tfm_version', 'architectures', 'model_type', '_name_or_path', '_commit_hash', 'auto_map',
}  # fmt: skip

TOKENIZER_CONFIG = 'tokenizer_config.json'
#: Fields of a tokenizer_config.json that do not depend on the vocabulary.
_VOCABULARY_FREE = ('chat_template', 'model_max_length', 'padding_side', 'truncation_side')
_SPECIAL_TOKENS = (
  'bos_token', 'eos_token', 'pad_token', 'mask_token', 'cls_token', 'sep_token', 'unk_token',
)  # fmt: skip


def matching_config(
  spec: Model, files: FolderFiles, architecture: str | None
) -> tuple[dict[str, Any], Published] | None:
  """Return the config of the loaded folder if it still describes a model, else None.

  Args:
    spec: The model to export.
    files: The files of the loaded folder.
    architecture: The requested class of transformers. None: the class in the config.

  Returns:
    The fields of `config.json`, and the published model that they describe.
  """
  values = files.json(CONFIG)
  try:
    model = published(values, ignore=None)
  except errors.UserError:
    return None
  if architecture not in (None, model.architecture):
    return None
  expected = flattened(normalised(spec))
  for other in _stored_specs(model.spec):
    if flattened(normalised(other)) == expected:
      return values, model._replace(spec=other)
  return None


def _stored_specs(spec: Model) -> Iterator[Model]:
  """Yield the spec of a config, then the variants without optional parts.

  Checkpoints may lack the layers of multi-token prediction or the pooler.
  """
  yield spec
  if spec.mtp is not None:
    yield dataclasses.replace(spec, mtp=None)
  if spec.classifier is not None and not spec.classifier.labels:
    yield spec.with_heads(classify=None)


def with_dtype(values: Mapping[str, Any], dtypes: set[str]) -> dict[str, Any]:
  """Return the fields of a config for unquantized parameters.

  Args:
    values: The fields of the config.
    dtypes: The dtypes of the parameters. If they differ, the config names float32.
  """
  found = dict(values)
  found.pop('quantization_config', None)
  found.pop('quantization', None)
  name = 'torch_dtype' if 'torch_dtype' in found and 'dtype' not in found else 'dtype'
  dtype = next(iter(dtypes)) if len(dtypes) == 1 else 'float32'
  if found.get(name) != dtype:
    found[name] = dtype
  return found


def keep_metadata(values: Mapping[str, Any], original: Mapping[str, Any]) -> dict[str, Any]:
  """Return a new config with the original's fields that do not affect the outputs.

  These are special tokens, label names, the problem type, lengths and bookkeeping. Label names are
  kept if the number of labels is the same, and the context length if no position table depends on
  it.

  Args:
    values: The fields of the new config.
    original: The fields of the config of the loaded folder.
  """
  found = dict(values)
  labels = original.get('id2label') or {}
  same_labels = bool(labels) and len(labels) == len(values.get('id2label') or {})
  for name, value in original.items():
    if (
      name not in SILENT
      or name in _STORAGE_FIELDS
      or (value is None and values.get(name) is not None)
    ):
      continue
    if name in ('id2label', 'label2id', 'num_labels') and not same_labels:
      continue
    found[name] = value
  context = original.get('max_position_embeddings')
  same_type = original.get('model_type') == values.get('model_type')
  if context and same_type and 'rope_parameters' in values:
    found['max_position_embeddings'] = context
  return found


def write_files(folder: Path, files: FolderFiles, tokenizer: Vocabulary | None) -> FolderFiles:
  """Write the files of a loaded folder into an export, with a possibly different tokenizer.

  Args:
    folder: The new folder.
    files: The files of the loaded folder.
    tokenizer: The tokenizer of the model. None keeps the tokenizer in `files`.

  Returns:
    The files that remain valid. Token ids are removed from their configs if the tokenizer changes
    the meaning of ids.
  """
  files.write(folder)
  if tokenizer is None:
    return files
  before = find_vocabulary(folder)
  if before is not None and before.same(tokenizer):
    return files
  if before is not None and not _extends(tokenizer, before):
    for name in (CONFIG, GENERATION):
      if name in files:
        fields = without_ids(files.json(name))
        files = files.with_files({name: json.dumps(fields, indent=2).encode()})
    files.write(folder)
  others = files.without(TOKENIZER)
  for name in set(files) - set(others):
    (folder / name).unlink()
  tokenizer.save(folder)
  (folder / 'vocabulary.json').unlink()
  if isinstance(tokenizer, FileVocabulary) and TOKENIZER_CONFIG in files:
    fields = _tokenizer_fields(files.json(TOKENIZER_CONFIG), tokenizer)
    config = json.dumps(fields, indent=2, ensure_ascii=False)
    (folder / TOKENIZER_CONFIG).write_text(config + '\n', 'utf-8')
  return files


def _extends(tokenizer: Vocabulary, before: Vocabulary) -> bool:
  """Return whether a tokenizer has all tokens of `before` with the same ids."""
  if not isinstance(tokenizer, FileVocabulary) or not isinstance(before, FileVocabulary):
    return False
  return before.inner.get_vocab().items() <= tokenizer.inner.get_vocab().items()


def _tokenizer_fields(config: Mapping[str, Any], tokenizer: FileVocabulary) -> dict[str, Any]:
  """Return the fields of a tokenizer_config.json that are valid for another tokenizer."""
  found = {name: config[name] for name in _VOCABULARY_FREE if name in config}
  for name in _SPECIAL_TOKENS:
    text = config.get(name)
    text = text.get('content') if isinstance(text, Mapping) else text
    known = text in tokenizer.added_texts
    if isinstance(text, str) and (known or tokenizer.inner.token_to_id(text) is not None):
      found[name] = text
  return {**found, 'tokenizer_class': 'PreTrainedTokenizerFast'}
