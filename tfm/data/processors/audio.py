"""Audio features that match Hugging Face's feature extractors. Clips are mono floats."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any, ClassVar, Self

import numpy as np

from tfm.core import errors
from tfm.data.processors import mel
from tfm.data.processors.processor import Processor, canonical, typed


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioProcessor(Processor):
  """The base of audio processors.

  Attributes:
    sampling_rate: The model's sampling rate in Hz.
    padding_value: The value of the padding at the end of shorter clips.
    padding_side: `right`. Other sides are not supported.
    return_attention_mask: Whether to return `attention_mask`, int32, 0 at padding.
  """

  sampling_rate: int = 16_000
  padding_value: float = 0.0
  padding_side: str = 'right'
  return_attention_mask: bool = True

  type_key: ClassVar[str] = 'feature_extractor_type'

  def __post_init__(self) -> None:
    if self.padding_side != 'right':
      raise errors.ConfigError(
        f'{self.name}.padding_side: {self.padding_side!r} is not supported. Expected right.'
      )
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if type(field.default) is int and value < 1:
        raise errors.ConfigError(
          f'{self.name}.{field.name}: {value!r}. Expected a positive integer.'
        )
    if getattr(self, 'dither', 0.0):
      raise errors.ConfigError(f'{self.name}.dither: random noise is not supported. Expected 0.')

  @classmethod
  def from_config(cls, config: Mapping[str, Any]) -> Self:
    name = canonical(config.get(cls.type_key) or cls.name)
    if name != cls.name:
      raise errors.ConfigError(f'{cls.type_key}: {name!r} is another class. Expected {cls.name}.')
    options = cls.options()
    read = {k: typed(f'{name}.{k}', v, type(options[k])) for k, v in cls.read(name, config).items()}
    return cls(source=dict(config), **read)

  def clips(self, audio: Any, sampling_rate: int, shortest: int = 1) -> list[np.ndarray]:
    """Return the clips of a batch as float32 (samples,).

    Args:
      audio: A clip, which is an array or a list of floats, or a list of clips.
      sampling_rate: Their sampling rate in Hz.
      shortest: The least number of samples.

    Returns:
      The checked clips.

    Raises:
      UserError: The sampling rate differs, or a clip is not mono, not floats, not finite or too
        short.
    """
    if sampling_rate != self.sampling_rate:
      raise errors.UserError(
        f'sampling_rate: is {sampling_rate} Hz. Expected {self.sampling_rate} Hz, as from '
        f'tfm.data.processors.resample(audio, {sampling_rate}, {self.sampling_rate}).'
      )
    is_batch = isinstance(audio, (list, tuple)) and (not audio or np.ndim(audio[0]) > 0)
    if not is_batch:
      return [_clip(audio, 'audio', shortest)]
    if not audio:
      raise errors.UserError('audio: the batch is empty. Expected at least one clip.')
    return [_clip(clip, f'audio[{i}]', shortest) for i, clip in enumerate(audio)]

  def stack(
    self, arrays: Sequence[np.ndarray], length: int, mask: bool
  ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Pad arrays to a common length along their first axis.

    Args:
      arrays: The arrays of a batch.
      length: The length of the result.
      mask: Whether to return the attention mask.

    Returns:
      float32 (batch, length, ...), and {'attention_mask': int32 (batch, length)} or {}.
    """
    out = np.full((len(arrays), length, *arrays[0].shape[1:]), self.padding_value, np.float32)
    for padded, array in zip(out, arrays, strict=True):
      padded[: len(array)] = array
    lengths = np.array([len(array) for array in arrays])
    return out, {'attention_mask': _mask(lengths, length)} if mask else {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class WhisperFeatures(AudioProcessor):
  """Whisper's log-mel spectrogram of 30 seconds (arXiv:2212.04356, section 2.2).

  Attributes:
    feature_size: The number of mel filters, 80 or 128.
    hop_length: Samples between two frames.
    chunk_length: The seconds to which clips are padded.
    n_fft: Samples of a frame.
    dither: 0. Random noise is not supported.
  """

  name: str = 'WhisperFeatureExtractor'
  feature_size: int = 80
  hop_length: int = 160
  chunk_length: int = 30
  n_fft: int = 400
  dither: float = 0.0
  return_attention_mask: bool = False

  def __call__(
    self,
    audio: Any,
    *,
    sampling_rate: int,
    truncation: bool = True,
    return_attention_mask: bool | None = None,
  ) -> dict[str, np.ndarray]:
    """Process clips.

    Args:
      audio: A clip or a list of clips, as for `AudioProcessor.clips`.
      sampling_rate: Their sampling rate in Hz.
      truncation: Whether to truncate clips to `chunk_length` seconds. Otherwise longer clips give
        more frames.
      return_attention_mask: Whether to return the mask. Defaults to the config.

    Returns:
      `input_features`, float32 (batch, mels, frames), and optionally `attention_mask`, int32
      (batch, frames).
    """
    clips, length = self.clips(audio, sampling_rate), self.chunk_length * self.sampling_rate
    if truncation:
      clips = [clip[:length] for clip in clips]
    waves, _ = self.stack(clips, max(length, *map(len, clips)), mask=False)
    features = np.stack([self._log_mel(wave) for wave in waves])
    out = {'input_features': features}
    masked = self.return_attention_mask if return_attention_mask is None else return_attention_mask
    if masked:
      frames = -(-np.array([len(clip) for clip in clips]) // self.hop_length)
      out['attention_mask'] = _mask(frames, features.shape[2])
    return out

  def _log_mel(self, wave: np.ndarray) -> np.ndarray:
    """Return float32 (mels, frames), clipped to 8 decades and scaled to about [-1, 1]."""
    wave = np.pad(wave.astype(np.float64), self.n_fft // 2, mode='reflect')
    window = mel.hann(self.n_fft, periodic=True)
    # Without the last frame L samples give L / hop frames, as in Whisper's code.
    power = mel.power_spectrogram(wave, window, self.hop_length, self.n_fft)[:-1]
    filters = mel.slaney_filters(self.feature_size, power.shape[1], self.sampling_rate, 8000.0)
    log = np.log10(np.maximum(power @ filters, 1e-10)).astype(np.float32)
    return np.ascontiguousarray(((np.maximum(log, log.max() - 8.0) + 4.0) / 4.0).T)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wav2Vec2Features(AudioProcessor):
  """Waveforms of zero mean and unit variance (wav2vec 2.0, HuBERT, WavLM and others).

  Attributes:
    feature_size: 1, because samples have no other axis.
    do_normalize: Whether to normalise each clip. Without an attention mask, the padding counts as
      samples, as for models that were trained without a mask.
  """

  name: str = 'Wav2Vec2FeatureExtractor'
  feature_size: int = 1
  do_normalize: bool = True
  return_attention_mask: bool = False

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.feature_size != 1:
      raise errors.ConfigError(f'{self.name}.feature_size: {self.feature_size}. Expected 1.')

  def __call__(
    self,
    audio: Any,
    *,
    sampling_rate: int,
    max_length: int | None = None,
    return_attention_mask: bool | None = None,
  ) -> dict[str, np.ndarray]:
    """Process clips.

    Args:
      audio: A clip or a list of clips, as for `AudioProcessor.clips`.
      sampling_rate: Their sampling rate in Hz.
      max_length: The number of samples to pad to, for equal shapes of all batches. Defaults to the
        longest clip.
      return_attention_mask: Whether to return the mask. Defaults to the config.

    Returns:
      `input_values`, float32 (batch, samples), and optionally `attention_mask`, int32 (batch,
      samples).

    Raises:
      UserError: A clip is longer than `max_length`.
    """
    clips = self.clips(audio, sampling_rate)
    longest = max(map(len, clips))
    if max_length is not None and longest > max_length:
      raise errors.UserError(
        f'audio: a clip has {longest} samples. Expected at most max_length={max_length}.'
      )
    masked = self.return_attention_mask if return_attention_mask is None else return_attention_mask
    if self.do_normalize and masked:
      clips = [_normalized(clip) for clip in clips]
    values, mask = self.stack(clips, max_length or longest, masked)
    if self.do_normalize and not masked:
      values = np.stack([_normalized(row) for row in values])
    return {'input_values': values, **mask}


def resample(audio: Any, from_rate: int, to_rate: int) -> np.ndarray:
  """Resample a clip with a polyphase filter.

  Args:
    audio: A clip, floats (samples,).
    from_rate: Its sampling rate in Hz.
    to_rate: The sampling rate of the result in Hz.

  Returns:
    float32 (ceil(samples * to_rate / from_rate),).
  """
  import scipy.signal

  for name, rate in (('from_rate', from_rate), ('to_rate', to_rate)):
    if int(rate) != rate or rate < 1:
      raise errors.UserError(f'resample: {name} is {rate!r}. Expected a positive integer, in Hz.')
  clip, shared = _clip(audio, 'audio', 1), math.gcd(int(from_rate), int(to_rate))
  up, down = int(to_rate) // shared, int(from_rate) // shared
  return scipy.signal.resample_poly(clip, up, down).astype(np.float32)


def _clip(clip: Any, where: str, shortest: int) -> np.ndarray:
  """Return a checked clip as float32 (samples,)."""
  clip = np.asarray(clip)
  if clip.ndim != 1:
    raise errors.UserError(
      f'{where}: the shape is {clip.shape}. Expected mono (samples,), such as the mean over '
      'channels, or list(audio) for a batch.'
    )
  if len(clip) < shortest:
    raise errors.UserError(f'{where}: has {len(clip)} samples. Expected at least {shortest}.')
  if clip.dtype.kind != 'f':
    raise errors.UserError(
      f'{where}: the dtype is {clip.dtype}. Expected floats in [-1, 1], such as int16 / 32768.'
    )
  if bad := int((~np.isfinite(clip)).sum()):
    raise errors.UserError(f'{where}: {bad} samples are NaN or infinite. Expected numbers.')
  return clip.astype(np.float32)


def _mask(lengths: np.ndarray, length: int) -> np.ndarray:
  """Return int32 (batch, length), 1 for positions below each length."""
  return (np.arange(length) < lengths[:, None]).astype(np.int32)


def _normalized(wave: np.ndarray) -> np.ndarray:
  return (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
