"""Audio to model inputs, with the numbers of Hugging Face's feature extractors. Clips are mono
floats.
"""

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
  """The base of the audio processors.

  Attributes:
    sampling_rate: The model's sampling rate in Hz.
    padding_value: The sample (or feature) at the end of shorter clips.
    padding_side: `right`; no other is supported.
    return_attention_mask: Whether to return `attention_mask`, int32, 0 at padding.
  """

  sampling_rate: int = 16_000
  padding_value: float = 0.0
  padding_side: str = 'right'
  return_attention_mask: bool = True

  type_key: ClassVar[str] = 'feature_extractor_type'

  def __post_init__(self):
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
      audio: One clip, an array or a list of floats, or a list of clips.
      sampling_rate: Their sampling rate in Hz.
      shortest: The least number of samples.

    Raises:
      UserError: Another sampling rate; not mono; not floats; not finite; empty.
    """
    if sampling_rate != self.sampling_rate:
      raise errors.UserError(
        f'sampling_rate: {sampling_rate} Hz. Expected {self.sampling_rate} Hz: '
        f'tfm.data.processors.resample(audio, {sampling_rate}, {self.sampling_rate}).'
      )
    many = isinstance(audio, (list, tuple)) and (not audio or np.ndim(audio[0]) > 0)
    batch: Sequence[Any] = audio if many else [audio]
    if not batch:
      raise errors.UserError('audio: the batch is empty. Expected at least one clip.')
    return [
      _clip(clip, f'audio[{i}]' if many else 'audio', shortest) for i, clip in enumerate(batch)
    ]

  def stack(
    self, rows: Sequence[np.ndarray], length: int, mask: bool
  ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Pad arrays to `length` along their first axis, and return them with their attention mask if
    `mask`.
    """
    out = np.full((len(rows), length, *rows[0].shape[1:]), self.padding_value, np.float32)
    for padded, row in zip(out, rows, strict=True):
      padded[: len(row)] = row
    lengths = np.array([len(row) for row in rows])
    return out, {'attention_mask': _mask(lengths, length)} if mask else {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class WhisperFeatures(AudioProcessor):
  """Whisper's log-mel spectrogram of 30 seconds (Radford et al., 2022, arXiv:2212.04356, section
  2.2).

  Attributes:
    feature_size: The number of mel filters, 80 or 128.
    hop_length: Samples from one frame to the next.
    chunk_length: The seconds to which clips are padded.
    n_fft: Samples in a frame.
    dither: 0; random noise is not supported.
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
      audio: One clip or a list of them, as `AudioProcessor.clips` takes them.
      sampling_rate: Their sampling rate in Hz.
      truncation: Whether to drop what follows `chunk_length` seconds. Otherwise a longer clip gives
      more frames.
      return_attention_mask: Whether to return the mask; by default as the config has it.

    Returns:
      `input_features`, float32 (batch, mels, frames), and perhaps `attention_mask`, int32 (batch,
      frames).
    """
    clips, length = self.clips(audio, sampling_rate), self.chunk_length * self.sampling_rate
    clips = [clip[:length] for clip in clips] if truncation else clips
    waves, _ = self.stack(clips, max(length, *map(len, clips)), mask=False)
    features = np.stack([self._log_mel(wave) for wave in waves])
    out = {'input_features': features}
    masked = self.return_attention_mask if return_attention_mask is None else return_attention_mask
    if masked:
      frames = -(-np.array([len(clip) for clip in clips]) // self.hop_length)
      out['attention_mask'] = _mask(frames, features.shape[2])
    return out

  def _log_mel(self, wave: np.ndarray) -> np.ndarray:
    """Return float32 (mels, frames), within 8 decades of the largest and scaled to about [-1, 1]."""
    wave = np.pad(wave.astype(np.float64), self.n_fft // 2, mode='reflect')
    # The last frame is dropped: L samples give L / hop frames, as Whisper's own code has them.
    power = mel.power_spectrogram(
      wave, mel.hann(self.n_fft, periodic=True), self.hop_length, self.n_fft
    )[:-1]
    energy = power @ mel.slaney_filters(
      self.feature_size, power.shape[1], self.sampling_rate, 8000.0
    )
    log = np.log10(np.maximum(energy, 1e-10)).astype(np.float32)
    return np.ascontiguousarray(((np.maximum(log, log.max() - 8.0) + 4.0) / 4.0).T)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wav2Vec2Features(AudioProcessor):
  """Waveforms of zero mean and unit variance (wav2vec 2.0, HuBERT, WavLM and others).

  Attributes: feature_size: 1; samples have no other axis. do_normalize: Whether to normalise each
    clip. Without an attention mask the padding counts as samples, as it does
      for the models that were trained without one.
  """

  name: str = 'Wav2Vec2FeatureExtractor'
  feature_size: int = 1
  do_normalize: bool = True
  return_attention_mask: bool = False

  def __post_init__(self):
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
      audio: One clip or a list of them, as `AudioProcessor.clips` takes them.
      sampling_rate: Their sampling rate in Hz.
      max_length: The samples to pad to, for one shape in every batch. The default is the longest
      clip.
      return_attention_mask: Whether to return the mask; by default as the config has it.

    Returns:
      `input_values`, float32 (batch, samples), and perhaps `attention_mask`, int32 (batch,
      samples).

    Raises:
      UserError: A clip is longer than `max_length`.
    """
    clips = self.clips(audio, sampling_rate)
    longest = max(map(len, clips))
    if max_length is not None and longest > max_length:
      raise errors.UserError(
        f'audio: {longest} samples, more than max_length. Expected at most {max_length}.'
      )
    masked = self.return_attention_mask if return_attention_mask is None else return_attention_mask
    if self.do_normalize and masked:
      clips = [_normalized(clip) for clip in clips]
    values, mask = self.stack(clips, max_length or longest, masked)
    if self.do_normalize and not masked:
      values = np.stack([_normalized(row) for row in values])
    return {'input_values': values, **mask}


def resample(audio: Any, from_rate: int, to_rate: int) -> np.ndarray:
  """Return a clip at another sampling rate, by a polyphase filter.

  Args:
    audio: One clip, floats (samples,).
    from_rate: Its sampling rate in Hz.
    to_rate: The sampling rate of the result in Hz.

  Returns:
    float32, ceil(samples * to_rate / from_rate) of them.
  """
  import scipy.signal

  for name, rate in (('from_rate', from_rate), ('to_rate', to_rate)):
    if int(rate) != rate or rate < 1:
      raise errors.UserError(f'resample: {name} is {rate!r}. Expected a positive integer, in Hz.')
  clip, shared = _clip(audio, 'audio', 1), math.gcd(int(from_rate), int(to_rate))
  return scipy.signal.resample_poly(clip, int(to_rate) // shared, int(from_rate) // shared).astype(
    np.float32
  )


def _clip(clip: Any, where: str, shortest: int) -> np.ndarray:
  """Return one clip as float32 (samples,), after checking it."""
  clip = np.asarray(clip)
  if clip.ndim != 1:
    raise errors.UserError(
      f'{where}: the shape is {clip.shape}. Expected mono, (samples,): the mean over the channels, '
      'or list(audio) for a batch.'
    )
  if len(clip) < shortest:
    raise errors.UserError(f'{where}: {len(clip)} samples. Expected at least {shortest}.')
  if clip.dtype.kind != 'f':
    raise errors.UserError(
      f'{where}: the dtype is {clip.dtype}. Expected floats in [-1, 1]: int16 samples / 32768.'
    )
  if bad := int((~np.isfinite(clip)).sum()):
    raise errors.UserError(f'{where}: {bad} samples are NaN or infinite. Expected numbers.')
  return clip.astype(np.float32)


def _mask(lengths: np.ndarray, length: int) -> np.ndarray:
  """Return int32 (batch, length), 1 before each row's length."""
  return (np.arange(length) < lengths[:, None]).astype(np.int32)


def _normalized(wave: np.ndarray) -> np.ndarray:
  return (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
