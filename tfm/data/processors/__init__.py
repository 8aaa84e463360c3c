"""Image and audio processors, configured by Hugging Face's `preprocessor_config.json`."""

from collections.abc import Mapping
import json
from pathlib import Path
from typing import Any

from tfm.core import errors, json_text
from tfm.core.registry import Table
from tfm.data.processors.audio import AudioProcessor, Wav2Vec2Features, WhisperFeatures, resample
from tfm.data.processors.filterbank import ASTFeatures, ParakeetFeatures, Speech2TextFeatures
from tfm.data.processors.images import ImageProcessor, image_name
from tfm.data.processors.processor import CLASS_CUTOFF, Processor, canonical, near
from tfm.data.processors.qwen2vl import Qwen2VLProcessor

__all__ = [
  'FILE',
  'FILES',
  'TABLE',
  'ASTFeatures',
  'AudioProcessor',
  'ImageProcessor',
  'ParakeetFeatures',
  'Processor',
  'Qwen2VLProcessor',
  'Speech2TextFeatures',
  'Wav2Vec2Features',
  'WhisperFeatures',
  'from_config',
  'from_files',
  'load',
  'resample',
  'save',
]

#: Hugging Face's class names. `XFeatureExtractor`, `XImageProcessorFast` and `XImageProcessorPil`
#: are aliases of `XImageProcessor`.
TABLE = Table(
  'processor',
  BeitImageProcessor=ImageProcessor,
  BitImageProcessor=ImageProcessor,
  BlipImageProcessor=ImageProcessor,
  CLIPImageProcessor=ImageProcessor,
  DeiTImageProcessor=ImageProcessor,
  LlavaImageProcessor=ImageProcessor,
  PerceiverImageProcessor=ImageProcessor,
  Qwen2VLImageProcessor=Qwen2VLProcessor,
  SegformerImageProcessor=ImageProcessor,
  SiglipImageProcessor=ImageProcessor,
  ViTImageProcessor=ImageProcessor,
  ASTFeatureExtractor=ASTFeatures,
  ParakeetFeatureExtractor=ParakeetFeatures,
  Speech2TextFeatureExtractor=Speech2TextFeatures,
  Wav2Vec2FeatureExtractor=Wav2Vec2Features,
  WhisperFeatureExtractor=WhisperFeatures,
)

#: The class for older configs that name none, by the `model_type` in config.json.
MODEL_TYPES = {
  'audio-spectrogram-transformer': 'ASTFeatureExtractor', 'beit': 'BeitImageProcessor',
  'blip': 'BlipImageProcessor',
  'blip-2': 'BlipImageProcessor', 'clip': 'CLIPImageProcessor',
  'data2vec-audio': 'Wav2Vec2FeatureExtractor',
  'deit': 'DeiTImageProcessor', 'dinov2': 'BitImageProcessor', 'hubert': 'Wav2Vec2FeatureExtractor',
  'llava': 'LlavaImageProcessor', 'paligemma': 'SiglipImageProcessor',
  'parakeet_ctc': 'ParakeetFeatureExtractor',
  'perceiver': 'PerceiverImageProcessor', 'qwen2_vl': 'Qwen2VLImageProcessor',
  'qwen2_5_vl': 'Qwen2VLImageProcessor', 'segformer': 'SegformerImageProcessor',
  'siglip': 'SiglipImageProcessor',
  'speech_to_text': 'Speech2TextFeatureExtractor', 'swin': 'ViTImageProcessor',
  'vit': 'ViTImageProcessor',
  'vit_mae': 'ViTImageProcessor', 'wav2vec2': 'Wav2Vec2FeatureExtractor',
  'wavlm': 'Wav2Vec2FeatureExtractor',
  'wav2vec2-conformer': 'Wav2Vec2FeatureExtractor', 'whisper': 'WhisperFeatureExtractor',
}  # fmt: skip

FILE, _NESTING_FILE = 'preprocessor_config.json', 'processor_config.json'
#: The files of a published folder that configure its processor.
FILES = (FILE, _NESTING_FILE)
_NESTED = ('image_processor', 'feature_extractor')


def from_config(config: Mapping[str, Any], model_type: str | None = None) -> Processor:
  """Return the processor of a config.

  Args:
    config: The object in `preprocessor_config.json`.
    model_type: The `model_type` in the model's config.json, for older configs that name no class.

  Returns:
    An image processor, called as `processor(images=...)`, or an audio processor, called as
    `processor(audio=..., sampling_rate=...)`.

  Raises:
    ConfigError: The class is missing or unknown, or does not support the config.
  """
  name = config.get('image_processor_type') or config.get('feature_extractor_type')
  if name is None and model_type in MODEL_TYPES:
    name = MODEL_TYPES[model_type]
    config = {TABLE[name].type_key: name} | dict(config)
  if not name:
    raise errors.ConfigError(
      f'{FILE}: names no class (model_type {model_type!r}). Expected image_processor_type or '
      'feature_extractor_type.'
    )
  entry = canonical(name) if canonical(name) in TABLE else image_name(name)
  if entry not in TABLE:
    raise errors.ConfigError(
      f'{FILE}: unknown processor {name!r}. Expected a name in tfm.data.processors.TABLE.'
      f'{near(entry, TABLE, CLASS_CUTOFF)}'
    )
  return TABLE[entry].from_config(config)


def load(folder: str | Path) -> Processor | None:
  """Return the processor of a published folder, or None if the folder has none.

  Args:
    folder: A folder with `preprocessor_config.json`, or with a `processor_config.json` that nests
      the same object. The nested object takes precedence, as in transformers.

  Raises:
    ConfigError: The config cannot be read, or names an unsupported processor.
  """
  folder = Path(folder).expanduser()
  model_type = (_json(folder / 'config.json') or {}).get('model_type')
  files = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
  return from_files(files, model_type, folder)


def from_files(
  files: Mapping[str, bytes], model_type: str | None = None, folder: Path | None = None
) -> Processor | None:
  """Return the processor that the contents of `FILES` configure.

  Args:
    files: Contents by name.
    model_type: The `model_type` in the model's config.json.
    folder: The folder, for errors.

  Returns:
    The processor, or None if there is no config.

  Raises:
    ConfigError: The config cannot be read, or names an unsupported processor.
  """
  where = lambda name: name if folder is None else str(folder / name)
  parsed = {name: _parsed(where(name), content) for name, content in files.items()}
  outer = parsed.get(_NESTING_FILE, {})
  nested = [key for key in _NESTED if key in outer]
  if len(nested) > 1:
    raise errors.ConfigError(
      f'{where(_NESTING_FILE)}: has {" and ".join(nested)}. Expected only one.'
    )
  file = _NESTING_FILE if nested else FILE
  config = outer[nested[0]] if nested else parsed.get(FILE)
  if config is None:
    return None
  try:
    return from_config(config, model_type)
  except errors.ConfigError as e:
    raise errors.ConfigError(f'{where(file)}: {str(e).removeprefix(f"{FILE}: ")}') from None


def save(processor: Processor, folder: str | Path) -> None:
  """Write a processor's config into a folder, where `load` and transformers find it.

  Args:
    processor: The processor.
    folder: An existing folder. If its `processor_config.json` nests a config, that is replaced;
      otherwise `preprocessor_config.json` is written.
  """
  folder = Path(folder).expanduser()
  outer = _json(folder / _NESTING_FILE) or {}
  key = _NESTED[0] if isinstance(processor, ImageProcessor) else _NESTED[1]
  if key in outer:
    path, values = folder / _NESTING_FILE, outer | {key: processor.to_config()}
  else:
    path, values = folder / FILE, processor.to_config()
  path.write_text(json.dumps(values, indent=2, sort_keys=True) + '\n', 'utf-8')


def _json(path: Path) -> dict[str, Any] | None:
  """Return the object in a file, or None if there is no file."""
  return _parsed(str(path), path.read_bytes()) if path.is_file() else None


def _parsed(where: str, content: bytes) -> dict[str, Any]:
  """Return the object in the contents of a file."""
  try:
    values = json_text.parse(content.decode('utf-8'))
  except ValueError as e:
    raise errors.ConfigError(f'{where}: is not JSON ({e}). Expected an object.') from None
  if not isinstance(values, dict):
    raise errors.ConfigError(f'{where}: holds {type(values).__name__}. Expected an object.')
  return values
