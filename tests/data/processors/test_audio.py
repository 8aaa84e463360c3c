"""Audio processors: published numbers, batches, masks and errors."""

import numpy as np
import pytest

from tfm.core import errors
from tfm.data.processors import (
  ASTFeatures,
  ParakeetFeatures,
  Speech2TextFeatures,
  Wav2Vec2Features,
  WhisperFeatures,
  mel,
  resample,
)

from . import samples

_ALL = (WhisperFeatures, Wav2Vec2Features, ASTFeatures, Speech2TextFeatures, ParakeetFeatures)
_RATE = 16_000


def _main(processor, audio, **options):
  """The first output, without the mask."""
  return next(iter(processor(audio=audio, sampling_rate=_RATE, **options).values()))


#: Shape, then first value, last value, mean and standard deviation for the test sound.
_NUMBERS = {
  'whisper_80': (WhisperFeatures(), (80, 3000), (1.156328, -0.488860, -0.462738, 0.188768)),
  'whisper_128': (
    WhisperFeatures(feature_size=128),
    (128, 3000),
    (1.080569, -0.441718, -0.419439, 0.170523),
  ),
  'wav2vec2': (Wav2Vec2Features(), (48_000,), (0.139878, -0.733571, 0, 1)),
  'ast': (ASTFeatures(), (1024, 128), (-0.493836, 0.467032, 0.117468, 0.650755)),
  'parakeet': (ParakeetFeatures(), (301, 80), (9.743694, 0, 0, 0.996656)),
}


@pytest.mark.parametrize('name', _NUMBERS)
def test_features_match_published_numbers(name):
  processor, shape, numbers = _NUMBERS[name]
  values = _main(processor, samples.sound())
  assert values.shape == (1, *shape)
  assert values.dtype == np.float32
  wide = values.astype(np.float64)
  assert (wide.flat[0], wide.flat[-1], wide.mean(), wide.std()) == pytest.approx(
    numbers, rel=3e-6, abs=1e-6
  )


def test_speech2text_matches_published_numbers():
  values = _main(Speech2TextFeatures(), samples.sound())[0]
  assert values.shape == (298, 80)
  assert (values[0, 0], values[-1, -1]) == pytest.approx((0.718919, 2.094959), abs=1e-5)
  # Three bands have only the constant tone of 3 kHz: deviation and values are rounding errors.
  raw = mel.kaldi_log_mel(samples.sound() * 2**15, mel.hann(400) ** 0.85, 80, _RATE)
  steady = raw.std(axis=0) < 1e-3
  assert steady.sum() == 3
  np.testing.assert_allclose(values[:, ~steady].mean(axis=0), 0, atol=1e-3)
  np.testing.assert_allclose(values[:, ~steady].std(axis=0), 1, atol=1e-3)


def test_qualities_of_the_test_sound():
  assert np.abs(samples.sound()).sum(dtype=np.float64) == pytest.approx(14162.93, abs=0.005)


@pytest.mark.parametrize('cls', _ALL)
def test_batch_rows_match_single_clips(cls):
  clips = [samples.noise(9000), samples.noise(6400, seed=1)]
  # Without a mask wav2vec 2.0 normalises padding too.
  options = {'return_attention_mask': True} if cls is Wav2Vec2Features else {}
  rows = _main(cls(), clips, **options)
  for row, clip in zip(rows, clips, strict=True):
    alone = _main(cls(), clip, **options)[0]
    ends = (len(alone) - 1) if cls is ParakeetFeatures else len(alone)
    np.testing.assert_allclose(row[:ends], alone[:ends], atol=2e-6)
    np.testing.assert_array_equal(row[len(alone) :], 0.0)


@pytest.mark.parametrize('cls', _ALL)
def test_lists_and_float64_match_arrays(cls):
  clip = samples.noise(2000)
  expected = _main(cls(), clip)
  np.testing.assert_array_equal(_main(cls(), clip.astype(np.float64)), expected)
  np.testing.assert_array_equal(_main(cls(), clip.tolist()), expected)
  np.testing.assert_array_equal(_main(cls(), [clip.tolist()]), expected)


@pytest.mark.parametrize('cls', _ALL)
def test_input_clip_is_not_changed(cls):
  clip = samples.noise(2000)
  _main(cls(), clip)
  np.testing.assert_array_equal(clip, samples.noise(2000))


def test_whisper_mask_marks_frames_of_sound():
  out = WhisperFeatures()(
    audio=samples.noise(1601), sampling_rate=_RATE, return_attention_mask=True
  )
  assert out['attention_mask'].dtype == np.int32
  assert out['attention_mask'][0].nonzero()[0].tolist() == list(range(11))
  assert 'attention_mask' not in WhisperFeatures()(audio=samples.noise(1601), sampling_rate=_RATE)


def test_whisper_truncates_by_default():
  long = samples.noise(32 * _RATE)
  assert _main(WhisperFeatures(), long).shape == (1, 80, 3000)
  assert _main(WhisperFeatures(), long, truncation=False).shape == (1, 80, 3200)
  np.testing.assert_array_equal(
    _main(WhisperFeatures(), long), _main(WhisperFeatures(), long[: 30 * _RATE])
  )


def test_wav2vec2_normalises_without_padding_if_masked():
  clips = [samples.noise(900), 3 + samples.noise(500)]
  out = Wav2Vec2Features(return_attention_mask=True)(audio=clips, sampling_rate=_RATE)
  assert out['attention_mask'].sum(axis=1).tolist() == [900, 500]
  assert out['input_values'][1, :500].mean() == pytest.approx(0, abs=1e-5)
  assert not out['input_values'][1, 500:].any()
  unmasked = _main(Wav2Vec2Features(), clips)
  assert unmasked[1, :500].mean() > 0.5
  assert unmasked[1].mean() == pytest.approx(0, abs=1e-5)


def test_wav2vec2_without_normalising_only_pads():
  clips = [samples.noise(900), samples.noise(500)]
  values = _main(Wav2Vec2Features(do_normalize=False), clips, max_length=1000)
  assert values.shape == (2, 1000)
  np.testing.assert_array_equal(values[1, :500], clips[1])
  assert not values[1, 500:].any()


def test_ast_cuts_long_clips():
  processor = ASTFeatures(max_length=10, do_normalize=False)
  long = samples.noise(_RATE)
  assert _main(processor, long).shape == (1, 10, 128)
  np.testing.assert_array_equal(
    _main(processor, long)[0], mel.kaldi_log_mel(long, mel.hann(400), 128, _RATE)[:10]
  )


def test_slaney_filters_have_area_one():
  filters = mel.slaney_filters(20, 2049, _RATE, 8000.0)
  np.testing.assert_allclose(filters.sum(axis=0) * 8000 / 2048, 1, rtol=2e-3)


def test_kaldi_filters_sum_to_one_between_centres():
  filters = mel.kaldi_filters(20, 2049, _RATE, 20.0)
  inside = slice(filters[:, 0].argmax() + 1, filters[:, -1].argmax())
  np.testing.assert_allclose(filters[inside].sum(axis=1), 1, rtol=1e-9)


def test_resample_keeps_a_tone():
  t = np.arange(8000) / 8000
  low = resample(np.sin(2 * np.pi * 440 * t), 8000, _RATE)
  assert low.dtype == np.float32
  assert low.shape == (16_000,)
  expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / _RATE)
  np.testing.assert_allclose(low[200:-200], expected[200:-200], atol=2e-3)


def test_resample_of_the_same_rate_changes_nothing():
  np.testing.assert_array_equal(resample(samples.noise(100), 8000, 8000), samples.noise(100))


def _error(call, match):
  with pytest.raises(errors.UserError, match=match):
    call()


@pytest.mark.parametrize('cls', _ALL)
def test_other_sampling_rate_suggests_resample(cls):
  _error(
    lambda: cls()(audio=samples.noise(900), sampling_rate=8000),
    r'^sampling_rate: is 8000 Hz. Expected 16000 Hz, as from tfm.data.processors.resample\(audio, '
    r'8000, '
    r'16000\)',
  )


@pytest.mark.parametrize('cls', _ALL)
@pytest.mark.parametrize(
  ('audio', 'match'),
  [
    (np.full(900, np.nan), r'^audio: 900 samples are NaN or infinite. Expected numbers'),
    ([np.zeros(900), np.full(900, np.inf)], r'^audio\[1\]: 900 samples are NaN or infinite'),
    (np.zeros((2, 900)), r'^audio: the shape is \(2, 900\). Expected mono'),
    ([np.zeros((900, 2))], r'^audio\[0\]: the shape is \(900, 2\). Expected mono'),
    (
      np.zeros(900, np.int16),
      r'^audio: the dtype is int16. Expected floats in \[-1, 1\], such as int16 / 32768',
    ),
    (np.zeros(0), r'^audio: has 0 samples. Expected at least'),
    ([], r'^audio: the batch is empty'),
  ],
)
def test_bad_audio_is_named(cls, audio, match):
  _error(lambda: cls()(audio=audio, sampling_rate=_RATE), match)


@pytest.mark.parametrize('cls', [ASTFeatures, Speech2TextFeatures])
def test_clip_shorter_than_a_frame_is_refused(cls):
  _error(
    lambda: cls()(audio=samples.noise(399), sampling_rate=_RATE),
    '399 samples. Expected at least 400',
  )


def test_speech2text_refuses_silence():
  _error(
    lambda: Speech2TextFeatures()(audio=[np.zeros(900)], sampling_rate=_RATE),
    r'^audio\[0\]: 80 features are constant. Expected a clip without silence',
  )


def test_wav2vec2_refuses_clips_over_max_length():
  _error(
    lambda: Wav2Vec2Features()(audio=samples.noise(900), sampling_rate=_RATE, max_length=800),
    '^audio: a clip has 900 samples. Expected at most max_length=800',
  )


def test_resample_refuses_a_fractional_rate():
  _error(
    lambda: resample(samples.noise(9), 0.5, 1),
    r'^resample: from_rate is 0.5. Expected a positive integer',
  )


@pytest.mark.parametrize(
  ('cls', 'config', 'match'),
  [
    (
      WhisperFeatures,
      {'dither': 0.1},
      r'^WhisperFeatureExtractor.dither: random noise is not supported. Expected 0',
    ),
    (
      WhisperFeatures,
      {'padding_side': 'left'},
      r"padding_side: 'left' is not supported. Expected right",
    ),
    (
      WhisperFeatures,
      {'hop_length': 0},
      r'^WhisperFeatureExtractor.hop_length: 0. Expected a positive integer',
    ),
    (
      WhisperFeatures,
      {'hop_length': 1.5},
      r'^WhisperFeatureExtractor.hop_length: 1.5 has the wrong type. Expected int',
    ),
    (WhisperFeatures, {'hop_lenght': 80}, r"hop_lenght: this option .* Did you mean 'hop_length'"),
    (
      WhisperFeatures,
      {'do_normalize': True},
      r'^WhisperFeatureExtractor.do_normalize: this option is not supported',
    ),
    (
      Wav2Vec2Features,
      {'feature_size': 2},
      r'^Wav2Vec2FeatureExtractor.feature_size: 2. Expected 1',
    ),
    (
      ASTFeatures,
      {'return_attention_mask': True},
      r'return_attention_mask: the features have no mask. Expected false',
    ),
    (
      ASTFeatures,
      {'feature_extractor_type': 'X'},
      r"^feature_extractor_type: 'X' is another class. Expected ASTFeat",
    ),
  ],
)
def test_bad_config_is_refused(cls, config, match):
  _error(lambda: cls.from_config(config), match)
