"""Processors compared with `transformers`."""

import json

import numpy as np
import pytest

from tfm.core import errors
from tfm.data import processors
from tfm.data.processors import mel

from . import samples

pytestmark = [
  pytest.mark.oracle,
  pytest.mark.filterwarnings(
    'ignore:At least one mel filter has all zero values'
  ),  # AST's own 128 of 257 bins
]

_RATE = 16_000
_DINOV2 = {
  'size': {'shortest_edge': 256},
  'image_mean': [0.485, 0.456, 0.406],
  'image_std': [0.229, 0.224, 0.225],
}

#: Class, and options that differ from its defaults.
_IMAGES = {
  'clip': ('CLIP', {}),
  'clip_short_side_exact': (
    'CLIP',
    {'size': {'shortest_edge': 50}, 'crop_size': {'height': 41, 'width': 61}},
  ),
  'clip_longest_edge': ('CLIP', {'size': {'shortest_edge': 224, 'longest_edge': 260}}),
  'clip_crop_only': ('CLIP', {'do_resize': False, 'crop_size': {'height': 99, 'width': 130}}),
  'clip_only_resize': ('CLIP', {'do_rescale': False, 'do_normalize': False}),
  'vit': ('ViT', {}),
  'vit_lanczos': ('ViT', {'size': {'height': 97, 'width': 60}, 'resample': 1}),
  'vit_one_mean': ('ViT', {'image_mean': 0.4, 'image_std': 0.3}),
  'deit': ('DeiT', {}),
  'siglip': ('Siglip', {}),
  'beit': ('Beit', {}),
  'beit_cropped': ('Beit', {'do_center_crop': True, 'crop_size': {'height': 200, 'width': 300}}),
  'dinov2': ('Bit', _DINOV2),
  'llava': ('Llava', {}),
  'llava_padded': ('Llava', {'do_pad': True}),
  'perceiver': ('Perceiver', {}),
  'perceiver_oblong': (
    'Perceiver',
    {'size': {'height': 99, 'width': 224}, 'crop_size': {'height': 100, 'width': 240}},
  ),
  'segformer': ('Segformer', {}),
  'blip': ('Blip', {}),
}


def _oracle(name, options=()):
  import transformers

  return getattr(transformers, name)(**dict(options))


def _three_axes(picture):
  """transformers takes no array of two axes."""
  return picture[:, :, None] if getattr(picture, 'ndim', 3) == 2 else picture


@pytest.mark.parametrize('case', _IMAGES)
def test_pixel_values_match(case):
  name, options = _IMAGES[case]
  ours = processors.from_config({'image_processor_type': f'{name}ImageProcessor'} | options)
  theirs = _oracle(f'{name}ImageProcessorPil', options)
  assert theirs.backend == 'pil'
  pictures = {'plain': samples.image()} | samples.shapes()
  if not ours.do_convert_rgb:
    pictures = {k: v for k, v in pictures.items() if k not in samples.NOT_RGB}
  for kind, picture in pictures.items():
    expected = theirs(_three_axes(picture), return_tensors='np')['pixel_values']
    np.testing.assert_array_equal(ours(images=picture)['pixel_values'], expected, err_msg=kind)


@pytest.mark.parametrize('name', ['ViT', 'DeiT', 'Beit', 'Perceiver'])
@pytest.mark.parametrize('kind', samples.NOT_RGB)
def test_both_refuse_other_modes_without_conversion(name, kind):
  picture = samples.shapes()[kind]
  with pytest.raises(ValueError, match=r'must have . elements|channel'):
    _oracle(f'{name}ImageProcessorPil')(_three_axes(picture), return_tensors='np')
  with pytest.raises(errors.UserError, match='RGB'):
    processors.from_config({'image_processor_type': f'{name}ImageProcessor'})(images=picture)


def test_unit_floats_match():
  unit = samples.image().astype(np.float32) / 255
  options = {'do_rescale': False}
  ours = processors.from_config({'image_processor_type': 'CLIPImageProcessor'} | options)
  expected = _oracle('CLIPImageProcessorPil', options)(unit, return_tensors='np')['pixel_values']
  np.testing.assert_array_equal(ours(images=unit)['pixel_values'], expected)


@pytest.mark.parametrize('case', _IMAGES)
def test_saved_image_folder_is_read_both_ways(case, tmp_path):
  import transformers

  name, options = _IMAGES[case]
  _oracle(f'{name}ImageProcessorPil', options).save_pretrained(tmp_path)
  written = json.loads((tmp_path / 'preprocessor_config.json').read_text())
  ours = processors.load(tmp_path)
  assert ours.to_config() == written
  processors.save(ours, tmp_path)
  assert json.loads((tmp_path / 'preprocessor_config.json').read_text()) == written
  theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend='pil')
  np.testing.assert_array_equal(
    ours(images=samples.image())['pixel_values'],
    theirs(samples.image(), return_tensors='np')['pixel_values'],
  )


def test_fields_of_a_new_processor_are_read_by_transformers(tmp_path):
  import transformers

  processor = processors.ImageProcessor(
    size=processors.pixels.Size(height=32, width=48), resample=3
  )
  processors.save(processor, tmp_path)
  theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend='pil')
  np.testing.assert_array_equal(
    processor(images=samples.image())['pixel_values'],
    theirs(samples.image(), return_tensors='np')['pixel_values'],
  )


def test_default_audio_folders_are_read_both_ways(tmp_path):
  for name in (n for n in processors.TABLE if n.endswith('FeatureExtractor')):
    theirs = _oracle(name)
    theirs.save_pretrained(tmp_path)
    written = json.loads((tmp_path / 'preprocessor_config.json').read_text())
    ours = processors.load(tmp_path)
    assert ours.to_config() == written
    for field, value in type(ours).options().items():
      assert getattr(theirs, field) == value, (name, field)


def test_processor_folder_of_version_5_is_read(tmp_path):
  import transformers

  extractor, vocabulary = (
    _oracle('Wav2Vec2FeatureExtractor', {'return_attention_mask': True}),
    tmp_path / 'vocab.json',
  )
  vocabulary.write_text(json.dumps({'<pad>': 0, '<unk>': 1, '|': 2, 'a': 3}))
  tokenizer = transformers.Wav2Vec2CTCTokenizer(str(vocabulary))
  transformers.Wav2Vec2Processor(feature_extractor=extractor, tokenizer=tokenizer).save_pretrained(
    tmp_path / 'saved'
  )
  assert not (tmp_path / 'saved' / 'preprocessor_config.json').exists()
  assert processors.load(tmp_path / 'saved') == processors.Wav2Vec2Features(
    return_attention_mask=True
  )


def _clips():
  return {
    'sound': samples.sound(),
    'noise': samples.noise(5000),
    'odd': samples.noise(16_123),
    'loud': 30 * samples.noise(7001),
  }


@pytest.mark.parametrize('mels', [80, 128])
def test_whisper_matches_numpy_path(mels):
  theirs = _oracle('WhisperFeatureExtractor', {'feature_size': mels})
  ours = processors.WhisperFeatures(feature_size=mels)
  for kind, clip in (
    _clips() | {'long': samples.noise(500_000), 'silence': np.zeros(9, np.float32)}
  ).items():
    padded = np.zeros(480_000, np.float32)
    padded[: len(clip)] = clip[:480_000]
    expected = theirs._np_extract_fbank_features(padded[None], 'cpu')
    out = ours(audio=clip, sampling_rate=_RATE)['input_features']
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6, err_msg=kind)


@pytest.mark.parametrize('lengths', [(9000, 6401), (500_000, 16_000)], ids=['short', 'long'])
def test_whisper_batch_and_mask_match(lengths):
  clips = [samples.noise(n, seed=i) for i, n in enumerate(lengths)]
  theirs = _oracle('WhisperFeatureExtractor')(
    clips, sampling_rate=_RATE, return_tensors='np', return_attention_mask=True
  )
  ours = processors.WhisperFeatures()(audio=clips, sampling_rate=_RATE, return_attention_mask=True)
  np.testing.assert_array_equal(ours['attention_mask'], theirs['attention_mask'])
  # With PyTorch installed, the class computes in single precision.
  np.testing.assert_allclose(ours['input_features'], theirs['input_features'], rtol=0, atol=2e-4)


def test_whisper_without_truncation_matches():
  clips = [samples.noise(500_123), samples.noise(16_000, seed=1)]
  options = {'truncation': False, 'return_attention_mask': True}
  theirs = _oracle('WhisperFeatureExtractor')(
    clips, sampling_rate=_RATE, return_tensors='np', padding='longest', **options
  )
  ours = processors.WhisperFeatures()(audio=clips, sampling_rate=_RATE, **options)
  np.testing.assert_array_equal(ours['attention_mask'], theirs['attention_mask'])
  np.testing.assert_allclose(ours['input_features'], theirs['input_features'], rtol=0, atol=2e-4)


@pytest.mark.parametrize('mask', [True, False])
@pytest.mark.parametrize('normalize', [True, False])
def test_wav2vec2_matches(mask, normalize):
  options = {'return_attention_mask': mask, 'do_normalize': normalize, 'padding_value': 0.5}
  clips = list(_clips().values())
  theirs = _oracle('Wav2Vec2FeatureExtractor', options)(
    clips, sampling_rate=_RATE, padding=True, return_tensors='np'
  )
  ours = processors.Wav2Vec2Features(**options)(audio=clips, sampling_rate=_RATE)
  assert set(ours) == set(theirs)
  for key, expected in theirs.items():
    np.testing.assert_allclose(ours[key], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
  'options', [{}, {'do_normalize': False}, {'num_mel_bins': 64, 'max_length': 50}], ids=str
)
def test_ast_matches(options):
  clips = list(_clips().values())
  theirs = _oracle('ASTFeatureExtractor', options)(clips, sampling_rate=_RATE, return_tensors='np')[
    'input_values'
  ]
  ours = processors.ASTFeatures(**options)(audio=clips, sampling_rate=_RATE)['input_values']
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
  'options', [{}, {'normalize_vars': False}, {'do_ceptral_normalize': False}], ids=str
)
def test_speech2text_matches(options):
  clips = list(_clips().values())
  theirs = _oracle('Speech2TextFeatureExtractor', options)(
    clips, sampling_rate=_RATE, padding=True, return_tensors='np'
  )
  ours = processors.Speech2TextFeatures(**options)(audio=clips, sampling_rate=_RATE)
  np.testing.assert_array_equal(ours['attention_mask'], theirs['attention_mask'])
  # The deviation of a band with a constant tone is a rounding error, which the division amplifies.
  raw = mel.kaldi_log_mel(samples.sound() * 2**15, mel.hann(400) ** 0.85, 80, _RATE)
  kept = raw.std(axis=0) > 1e-3
  assert kept.sum() == 77
  np.testing.assert_allclose(
    ours['input_features'][..., kept], theirs['input_features'][..., kept], rtol=0, atol=2e-4
  )


def test_parakeet_matches():
  clips = list(_clips().values())
  theirs = _oracle('ParakeetFeatureExtractor')(clips, sampling_rate=_RATE, return_tensors='pt')
  ours = processors.ParakeetFeatures()(audio=clips, sampling_rate=_RATE)
  np.testing.assert_array_equal(ours['attention_mask'], theirs['attention_mask'].numpy())
  scale = np.abs(ours['input_features']).max()
  np.testing.assert_allclose(
    ours['input_features'], theirs['input_features'].numpy(), rtol=0, atol=1e-4 * scale
  )
