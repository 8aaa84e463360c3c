"""Audio processors with log filter banks: AST, Speech2Text and Parakeet."""

import dataclasses
from typing import Any

import numpy as np

from tfm.core import errors
from tfm.data.processors import mel
from tfm.data.processors.audio import AudioProcessor

#: Added to Parakeet's filter energies before the logarithm, and to its standard deviations.
_PARAKEET_FLOOR, _PARAKEET_EPSILON = 2.0**-24, 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class ASTFeatures(AudioProcessor):
  """Log filter banks of a fixed length (Audio Spectrogram Transformer, arXiv:2104.01778).

  Attributes:
    feature_size: Unused, as in Hugging Face's class.
    num_mel_bins: The number of mel filters.
    max_length: The number of frames after padding or truncation.
    do_normalize: Whether to subtract `mean` and divide by `2 std`.
    mean: The mean of the features in the training set.
    std: Their standard deviation.
  """

  name: str = 'ASTFeatureExtractor'
  feature_size: int = 1
  num_mel_bins: int = 128
  max_length: int = 1024
  do_normalize: bool = True
  mean: float = -4.2677393
  std: float = 4.5689974
  return_attention_mask: bool = False

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.return_attention_mask:
      raise errors.ConfigError(
        f'{self.name}.return_attention_mask: the features have no mask. Expected false.'
      )

  def __call__(self, audio: Any, *, sampling_rate: int) -> dict[str, np.ndarray]:
    """Process clips.

    Args:
      audio: A clip or a list of clips, as for `AudioProcessor.clips`.
      sampling_rate: Their sampling rate in Hz.

    Returns:
      `input_values`, float32 (batch, frames, mels).
    """
    clips = self.clips(audio, sampling_rate, 400)
    out = np.zeros((len(clips), self.max_length, self.num_mel_bins), np.float32)
    for features, clip in zip(out, clips, strict=True):
      frames = mel.kaldi_log_mel(clip, mel.hann(400), self.num_mel_bins, self.sampling_rate)
      frames = frames[: self.max_length]
      features[: len(frames)] = frames
    return {'input_values': (out - self.mean) / (self.std * 2) if self.do_normalize else out}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speech2TextFeatures(AudioProcessor):
  """Log filter banks, normalised per clip and filter (arXiv:2010.05171).

  Attributes:
    feature_size: The number of features, equal to `num_mel_bins`.
    num_mel_bins: The number of mel filters.
    do_ceptral_normalize: Whether to normalise (Hugging Face's spelling).
    normalize_means: Whether to subtract the mean of each filter.
    normalize_vars: Whether to divide by the standard deviation of each filter.
    dither: 0. Random noise is not supported.
  """

  name: str = 'Speech2TextFeatureExtractor'
  feature_size: int = 80
  num_mel_bins: int = 80
  do_ceptral_normalize: bool = True
  normalize_means: bool = True
  normalize_vars: bool = True
  dither: float = 0.0

  def __call__(self, audio: Any, *, sampling_rate: int) -> dict[str, np.ndarray]:
    """Process clips.

    Args:
      audio: A clip or a list of clips, as for `AudioProcessor.clips`.
      sampling_rate: Their sampling rate in Hz.

    Returns:
      `input_features`, float32 (batch, frames, mels), and `attention_mask`, int32 (batch, frames).

    Raises:
      UserError: A filter has constant energy in a clip, as in silence, so that it has no deviation
        to divide by.
    """
    clips = self.clips(audio, sampling_rate, 400)
    arrays = [self._features(clip, f'audio[{i}]') for i, clip in enumerate(clips)]
    features, mask = self.stack(arrays, max(map(len, arrays)), mask=True)
    return {'input_features': features, **mask}

  def _features(self, clip: np.ndarray, where: str) -> np.ndarray:
    window = mel.hann(400) ** 0.85  # Povey's window
    # Kaldi reads 16-bit integers.
    features = mel.kaldi_log_mel(clip * 2**15, window, self.num_mel_bins, self.sampling_rate)
    if self.do_ceptral_normalize and self.normalize_means:
      features = features - features.mean(axis=0)
    if self.do_ceptral_normalize and self.normalize_vars:
      std = features.std(axis=0)
      if not std.all():
        raise errors.UserError(
          f'{where}: {int((std == 0).sum())} features are constant. Expected a clip without '
          'silence.'
        )
      features = features / std
    return features


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParakeetFeatures(AudioProcessor):
  """NeMo's log-mel features, normalised per clip and filter (Parakeet).

  Attributes:
    feature_size: The number of mel filters.
    hop_length: Samples between two frames.
    n_fft: The length of the FFT.
    win_length: Samples of the window, in the middle of the FFT frame.
    preemphasis: The share of the previous sample that is subtracted from each sample.
  """

  name: str = 'ParakeetFeatureExtractor'
  feature_size: int = 80
  hop_length: int = 160
  n_fft: int = 512
  win_length: int = 400
  preemphasis: float = 0.97

  def __call__(self, audio: Any, *, sampling_rate: int) -> dict[str, np.ndarray]:
    """Process clips.

    Args:
      audio: A clip or a list of clips, as for `AudioProcessor.clips`.
      sampling_rate: Their sampling rate in Hz.

    Returns:
      `input_features`, float32 (batch, frames, mels), and `attention_mask`, int32 (batch, frames).
      The last frame of the longest clip is padding too.
    """
    # A standard deviation needs two frames.
    clips = self.clips(audio, sampling_rate, 2 * self.hop_length)
    arrays = [self._features(clip) for clip in clips]
    features, mask = self.stack(arrays, 1 + max(map(len, clips)) // self.hop_length, mask=True)
    return {'input_features': features, **mask}

  def _features(self, clip: np.ndarray) -> np.ndarray:
    wave = clip.astype(np.float64)
    wave[1:] -= self.preemphasis * wave[:-1]
    window, side = np.zeros(self.n_fft), (self.n_fft - self.win_length) // 2
    window[side : side + self.win_length] = mel.hann(self.win_length)
    power = mel.power_spectrogram(
      np.pad(wave, self.n_fft // 2), window, self.hop_length, self.n_fft
    )
    filters = mel.slaney_filters(
      self.feature_size, power.shape[1], self.sampling_rate, self.sampling_rate / 2
    )
    features = np.log(power @ filters + _PARAKEET_FLOOR)[: len(clip) // self.hop_length]
    return (features - features.mean(axis=0)) / (features.std(axis=0, ddof=1) + _PARAKEET_EPSILON)
