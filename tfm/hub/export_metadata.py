"""What an exported folder takes over from the folder that its model came from."""

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

#: Fields of a config that describe the stored weights or the program that wrote it, and not the
#: model.
_STORED = {
  'dtype', 'torch_dtype', 'quantization_config', 'quantization', 'transformers_version',
  'tfm_version',
  'architectures', 'model_type', '_name_or_path', '_commit_hash', 'auto_map',
}  # fmt: skip

TOKENIZER_CONFIG = 'tokenizer_config.json'
#: Fields of a tokenizer_config.json that do not depend on the vocabulary.
_ANY_TOKENIZER = ('chat_template', 'model_max_length', 'padding_side', 'truncation_side')


def matching_config(
  spec: Model, files: FolderFiles, architecture: str | None
) -> tuple[dict[str, Any], Published] | None:
  """Return the original config and its reading, if it still describes `spec` as `architecture`
  (None: its own class).

  Args:
    spec: The model to export.
    files: The files of the folder that it came from.
    architecture: The class of transformers that is asked for.
  """
  values = files.json(CONFIG)
  try:
    found = published(values, ignore=None)
  except errors.UserError:
    return None
  if architecture not in (None, found.architecture):
    return None
  wanted = flattened(normalised(spec))
  for other in _stored_specs(found.spec):
    if flattened(normalised(other)) == wanted:
      return values, found._replace(spec=other)
  return None


def _stored_specs(spec: Model) -> Iterator[Model]:
  """Yield the specs of checkpoints of a config: all of it, or without an optional pooler or
  later-token layers.
  """
  yield spec
  if spec.mtp is not None:
    yield dataclasses.replace(spec, mtp=None)
  if spec.classifier is not None and not spec.classifier.labels:
    yield spec.with_heads(classify=None)


def with_dtype(values: Mapping[str, Any], dtypes: set[str]) -> dict[str, Any]:
  """Return the fields of a config for parameters of these dtypes, which are not quantized."""
  found = {
    name: value
    for name, value in values.items()
    if name not in ('quantization_config', 'quantization')
  }
  name = 'torch_dtype' if 'torch_dtype' in found and 'dtype' not in found else 'dtype'
  dtype = dtypes.pop() if len(dtypes) == 1 else 'float32'
  if found.get(name) != dtype:
    found[name] = dtype
  return found


def keep_metadata(values: Mapping[str, Any], original: Mapping[str, Any]) -> dict[str, Any]:
  """Return the fields of a new config with those of the original that say nothing of what is
  computed.

  They are special tokens, label names, the type of the problem, lengths and bookkeeping. Label
  names are kept if there are as many labels, the context length if positions need no table of it.
  """
  found = dict(values)
  labels = original.get('id2label') or {}
  same_labels = bool(labels) and len(labels) == len(values.get('id2label') or {})
  for name, value in original.items():
    if name not in SILENT or name in _STORED or (value is None and values.get(name) is not None):
      continue
    if name in ('id2label', 'label2id', 'num_labels') and not same_labels:
      continue
    found[name] = value
  context = original.get('max_position_embeddings')
  if (
    context
    and original.get('model_type') == values.get('model_type')
    and 'rope_parameters' in values
  ):
    found['max_position_embeddings'] = context
  return found


def write_files(folder: Path, files: FolderFiles, tokenizer: Vocabulary | None) -> FolderFiles:
  """Write the files beside the weights, with `tokenizer` in place of theirs if it is another.

  Returns:
    The files that still hold: without ids of tokens, if ids mean other tokens now.
  """
  files.write(folder)
  if tokenizer is None:
    return files
  before = find_vocabulary(folder)
  if before is not None and before.same(tokenizer):
    return files
  if before is not None and not _extends(tokenizer, before):
    changed = {n: without_ids(files.json(n)) for n in (CONFIG, GENERATION) if n in files}
    files = files.with_files(
      {n: json.dumps(fields, indent=2).encode() for n, fields in changed.items()}
    )
    files.write(folder)
  others = files.without(TOKENIZER)
  for name in set(files) - set(others):
    (folder / name).unlink()
  tokenizer.save(folder)
  (folder / 'vocabulary.json').unlink()
  if isinstance(tokenizer, FileVocabulary) and TOKENIZER_CONFIG in files:
    config = json.dumps(
      _still_true(files.json(TOKENIZER_CONFIG), tokenizer), indent=2, ensure_ascii=False
    )
    (folder / TOKENIZER_CONFIG).write_text(config + '\n', 'utf-8')
  return files


def _extends(tokenizer: Vocabulary, before: Vocabulary) -> bool:
  """Return whether all tokens of a tokenizer have the same ids in another one."""
  if not isinstance(tokenizer, FileVocabulary) or not isinstance(before, FileVocabulary):
    return False
  return before.inner.get_vocab().items() <= tokenizer.inner.get_vocab().items()


def _still_true(config: Mapping[str, Any], tokenizer: FileVocabulary) -> dict[str, Any]:
  """Return the fields of a tokenizer_config.json that hold for another tokenizer, whose
  tokenizer.json is complete.
  """
  found = {name: config[name] for name in _ANY_TOKENIZER if name in config}
  for name in (
    'bos_token',
    'eos_token',
    'pad_token',
    'mask_token',
    'cls_token',
    'sep_token',
    'unk_token',
  ):
    text = config.get(name)
    text = text.get('content') if isinstance(text, Mapping) else text
    if isinstance(text, str) and tokenizer.inner.token_to_id(text) is not None:
      found[name] = text
  return {**found, 'tokenizer_class': 'PreTrainedTokenizerFast'}
