"""Reading and writing the configs of published folders."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from tfm.core import errors
from tfm.data import processors
from tfm.data.processors import ImageProcessor, Wav2Vec2Features, WhisperFeatures
from tfm.data.processors.pixels import Size

from . import samples

_OLD_CLIP = {
  'crop_size': 224, 'do_center_crop': True, 'do_normalize': True, 'do_resize': True,
  'feature_extractor_type': 'CLIPFeatureExtractor',
  'image_mean': [0.48145466, 0.4578275, 0.40821073],
  'image_std': [0.26862954, 0.26130258, 0.27577711], 'resample': 3, 'size': 224,
}  # fmt: skip
_OLD_VIT = {
  'do_normalize': True,
  'do_resize': True,
  'image_mean': [0.5] * 3,
  'image_std': [0.5] * 3,
  'size': 224,
}
_OLD_WAV2VEC2 = {
  'do_normalize': True, 'feature_size': 1, 'padding_side': 'right', 'padding_value': 0.0,
  'return_attention_mask': False, 'sampling_rate': 16000,
}  # fmt: skip
_WHISPER = {
  'chunk_length': 30, 'feature_extractor_type': 'WhisperFeatureExtractor', 'feature_size': 80,
  'hop_length': 160,
  'mel_filters': [[0.0, 0.1]], 'n_fft': 400, 'n_samples': 480000, 'nb_max_frames': 3000,
  'padding_side': 'right',
  'padding_value': 0.0, 'processor_class': 'WhisperProcessor', 'return_attention_mask': False,
  'sampling_rate': 16000,
}  # fmt: skip


def _write(folder, **files):
  for name, values in files.items():
    (folder / f'{name}.json').write_text(json.dumps(values))
  return folder


@pytest.mark.parametrize('name', processors.TABLE)
def test_every_row_round_trips(name, tmp_path):
  key = processors.TABLE[name].type_key
  processor = processors.from_config({key: name})
  assert processor.name == name
  assert processor.to_config() == {key: name}
  explicit = dataclasses.replace(processor, source={})
  assert set(explicit.to_config()) == {key, *type(processor).options()}
  processors.save(explicit, tmp_path)
  assert processors.load(tmp_path) == processor


@pytest.mark.parametrize('config', [_OLD_CLIP, _WHISPER], ids=['clip', 'whisper'])
def test_unchanged_config_is_written_as_read(config, tmp_path):
  config = config | {'processor_class': 'X', 'an_unknown_key': [1, {'a': None}], 'do_rescale': None}
  processor = processors.load(_write(tmp_path, preprocessor_config=config))
  assert processor.to_config() == config
  processors.save(processor, tmp_path)
  assert json.loads((tmp_path / 'preprocessor_config.json').read_text()) == config


def test_only_changed_fields_are_written():
  processor = dataclasses.replace(
    processors.from_config(_OLD_CLIP), size=Size(shortest_edge=336), do_rescale=False
  )
  assert processor.to_config() == _OLD_CLIP | {'size': {'shortest_edge': 336}, 'do_rescale': False}
  assert processors.from_config(processor.to_config()) == processor


@pytest.mark.parametrize(
  'name',
  ['CLIPImageProcessor', 'CLIPFeatureExtractor', 'CLIPImageProcessorFast', 'CLIPImageProcessorPil'],
)
@pytest.mark.parametrize('key', ['image_processor_type', 'feature_extractor_type'])
def test_class_names_of_all_versions_agree(key, name):
  assert processors.from_config({key: name}) == processors.from_config(_OLD_CLIP)


@pytest.mark.parametrize(
  ('name', 'size'),
  [
    ('CLIPFeatureExtractor', Size(shortest_edge=99)),
    ('SiglipImageProcessor', Size(shortest_edge=99)),
    ('BitImageProcessor', Size(shortest_edge=99)),
    ('LlavaImageProcessor', Size(shortest_edge=99)),
    ('ViTFeatureExtractor', Size(height=99, width=99)),
    ('DeiTFeatureExtractor', Size(height=99, width=99)),
    ('BeitFeatureExtractor', Size(height=99, width=99)),
    ('PerceiverFeatureExtractor', Size(height=99, width=99)),
  ],
)
def test_single_number_is_resolved_by_the_class(name, size):
  processor = processors.from_config({'feature_extractor_type': name, 'size': 99, 'crop_size': 88})
  assert processor.size == size
  assert processor.crop_size == Size(height=88, width=88)


def test_default_to_square_in_config_is_obeyed():
  config = {'image_processor_type': 'CLIPImageProcessor', 'size': 99, 'default_to_square': True}
  assert processors.from_config(config).size == Size(height=99, width=99)


@pytest.mark.parametrize(
  ('model_type', 'config', 'name'),
  [('vit', _OLD_VIT, 'ViTImageProcessor'), ('wav2vec2', _OLD_WAV2VEC2, 'Wav2Vec2FeatureExtractor')],
)
def test_model_type_names_the_class_of_old_configs(model_type, config, name, tmp_path):
  processor = processors.load(
    _write(tmp_path, preprocessor_config=config, config={'model_type': model_type})
  )
  assert processor.name == name


def test_every_model_type_has_a_row():
  assert set(processors.MODEL_TYPES.values()) <= set(processors.TABLE)


def test_folder_without_config_has_no_processor(tmp_path):
  assert processors.load(tmp_path) is None
  assert (
    processors.load(
      _write(tmp_path, processor_config={'processor_class': 'LlavaProcessor', 'patch_size': 14})
    )
    is None
  )


@pytest.mark.parametrize(
  ('key', 'config', 'cls'),
  [
    ('image_processor', _OLD_CLIP, ImageProcessor),
    ('feature_extractor', _WHISPER, WhisperFeatures),
  ],
)
def test_nested_config_comes_first_and_is_saved_in_place(key, config, cls, tmp_path):
  outer = {'processor_class': 'X', 'patch_size': 14, key: config}
  _write(tmp_path, processor_config=outer, preprocessor_config=_OLD_VIT)
  processor = processors.load(tmp_path)
  assert type(processor) is cls
  processors.save(
    dataclasses.replace(
      processor, **{'do_rescale': False} if cls is ImageProcessor else {'n_fft': 512}
    ),
    tmp_path,
  )
  saved = json.loads((tmp_path / 'processor_config.json').read_text())
  assert saved == outer | {
    key: config | ({'do_rescale': False} if cls is ImageProcessor else {'n_fft': 512})
  }
  assert json.loads((tmp_path / 'preprocessor_config.json').read_text()) == _OLD_VIT


def test_processors_are_called_by_keyword(tmp_path):
  image = processors.load(_write(tmp_path, preprocessor_config=_OLD_CLIP))
  assert image(images=samples.image())['pixel_values'].shape == (1, 3, 224, 224)
  audio = processors.load(_write(tmp_path, preprocessor_config=_WHISPER))
  assert audio(audio=samples.noise(900), sampling_rate=16_000)['input_features'].shape == (
    1,
    80,
    3000,
  )


def test_import_needs_neither_pillow_nor_scipy():
  code = (
    'import sys\n'
    'before = set(sys.modules)\n'
    'import tfm, tfm.data\n'
    'loaded = [m for m in ("PIL", "scipy.signal") if m in sys.modules]\n'
    'import tfm.data.processors\n'
    'loaded += [m for m in ("PIL", "scipy.signal") if m in sys.modules]\n'
    'sys.exit(str(loaded) if loaded else 0)\n'
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
  ('files', 'match'),
  [
    (
      {'preprocessor_config': {'size': 224}},
      r'preprocessor_config.json: names no class \(model_type None\)',
    ),
    (
      {'preprocessor_config': {'size': 224}, 'config': {'model_type': 'llama'}},
      r"names no class \(model_type 'llama'\). Expected image_processor_type or "
      r'feature_extractor_type',
    ),
    (
      {'preprocessor_config': {'feature_extractor_type': 'WhisperFeatureExtracter'}},
      r"preprocessor_config.json: unknown processor 'WhisperFeatureExtracter'.* Did you mean "
      r"'WhisperFeatureExtractor'",
    ),
    (
      {'processor_config': {'image_processor': {'image_processor_type': 'SigLipImageProcessor'}}},
      r"/processor_config.json: unknown processor 'SigLipImageProcessor'. .* Did you mean "
      r"'SiglipImageProcessor'",
    ),
    (
      {'preprocessor_config': {'image_processor_type': 'ViTImageProcessor', 'do_thumbnail': True}},
      r'preprocessor_config.json: ViTImageProcessor.do_thumbnail: this option is not supported',
    ),
    (
      {'preprocessor_config': {'image_processor_type': 'ConvNextImageProcessor'}},
      r"unknown processor 'ConvNextImageProcessor'. Expected a name in tfm.data.processors.TABLE.$",
    ),
    (
      {'processor_config': {'image_processor': {}, 'feature_extractor': {}}},
      r'processor_config.json: has image_processor and feature_extractor. Expected only one',
    ),
    ({'preprocessor_config': [1]}, r'preprocessor_config.json: holds list. Expected an object'),
  ],
)
def test_bad_folder_is_named(files, match, tmp_path):
  with pytest.raises(errors.ConfigError, match=match):
    processors.load(_write(tmp_path, **files))


def test_broken_json_is_named(tmp_path):
  (tmp_path / 'preprocessor_config.json').write_text('{')
  with pytest.raises(
    errors.ConfigError, match=r'preprocessor_config.json: is not JSON \(.*\). Expected an object'
  ):
    processors.load(tmp_path)


def test_new_processor_writes_all_its_fields():
  config = Wav2Vec2Features(do_normalize=False).to_config()
  assert config['feature_extractor_type'] == 'Wav2Vec2FeatureExtractor'
  assert config['do_normalize'] is False
  assert processors.from_config(config) == Wav2Vec2Features(do_normalize=False)
  assert np.isclose(ImageProcessor().to_config()['rescale_factor'], 1 / 255)
