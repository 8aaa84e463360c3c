"""Mel filter banks and spectrograms in numpy, vectorised over frames."""

import functools

import numpy as np

#: Kaldi's floor of filter energies: the float32 epsilon.
_KALDI_FLOOR = float(np.finfo(np.float32).eps)


@functools.lru_cache(maxsize=16)
def slaney_filters(mels: int, bins: int, rate: int, high: float) -> np.ndarray:
  """Return triangular filters on Slaney's mel scale, each of area 1 (librosa's default).

  Args:
    mels: The number of filters.
    bins: The number of frequency bins, 1 + n_fft / 2.
    rate: The sampling rate in Hz.
    high: The upper end of the last filter in Hz. The first filter begins at 0.

  Returns:
    float64 (bins, mels), read-only.
  """
  corners = _slaney_hertz(np.linspace(0.0, _slaney_mel(high), mels + 2))
  filters = _triangles(np.linspace(0.0, rate // 2, bins), corners)
  filters *= 2.0 / (corners[2:] - corners[:-2])
  filters.flags.writeable = False
  return filters


@functools.lru_cache(maxsize=16)
def kaldi_filters(mels: int, bins: int, rate: int, low: float) -> np.ndarray:
  """Return Kaldi's filters: triangles of peak 1 on the HTK mel scale.

  Args:
    mels: The number of filters.
    bins: The number of frequency bins, 1 + n_fft / 2.
    rate: The sampling rate in Hz.
    low: The lower end of the first filter in Hz. The last filter ends at half the sampling rate.

  Returns:
    float64 (bins, mels), read-only.
  """
  hertz = rate / (2 * (bins - 1)) * np.arange(bins)
  corners = np.linspace(_htk_mel(low), _htk_mel(rate // 2), mels + 2)
  filters = _triangles(_htk_mel(hertz), corners)
  filters.flags.writeable = False
  return filters


def power_spectrogram(wave: np.ndarray, window: np.ndarray, hop: int, n_fft: int) -> np.ndarray:
  """Return |FFT|^2 of the windowed frames within `wave`.

  Args:
    wave: float64 (samples,).
    window: The window of a frame, at most `n_fft` samples. Shorter frames are padded with zeros
      at the end.
    hop: Samples between two frames.
    n_fft: The length of the FFT.

  Returns:
    float64 (frames, 1 + n_fft / 2).
  """
  return _power(_frames(wave, len(window), hop) * window, n_fft)


def kaldi_log_mel(wave: np.ndarray, window: np.ndarray, mels: int, rate: int) -> np.ndarray:
  """Return Kaldi's log filter bank: frames of 25 ms every 10 ms at 16 kHz.

  The mean of each frame is subtracted, and pre-emphasis is 0.97.

  Args:
    wave: (samples,).
    window: The window of a frame, 400 samples.
    mels: The number of filters, from 20 Hz to half the sampling rate.
    rate: The sampling rate in Hz.

  Returns:
    float32 (frames, mels), natural logarithms.
  """
  frames = _frames(wave.astype(np.float64), len(window), 160)
  frames = frames - frames.mean(axis=1, keepdims=True)
  frames[:, 1:] -= 0.97 * frames[:, :-1]
  frames[:, 0] *= 1 - 0.97
  power = _power(frames * window, 512)
  energy = kaldi_filters(mels, power.shape[1], rate, 20.0).T @ power.T
  return np.ascontiguousarray(np.log(np.maximum(energy, _KALDI_FLOOR)).astype(np.float32).T)


def hann(length: int, periodic: bool = False) -> np.ndarray:
  """Return the Hann window of `length` samples. A periodic one leaves out the last zero."""
  return np.hanning(length + 1)[:-1] if periodic else np.hanning(length)


def _frames(wave: np.ndarray, length: int, hop: int) -> np.ndarray:
  return np.lib.stride_tricks.sliding_window_view(wave, length)[::hop]


def _power(frames: np.ndarray, n_fft: int) -> np.ndarray:
  # Single precision matches the published features: near-constant features amplify its rounding.
  spectrum = np.fft.rfft(frames, n_fft).astype(np.complex64)
  return spectrum.real.astype(np.float64) ** 2 + spectrum.imag.astype(np.float64) ** 2


def _triangles(at: np.ndarray, corners: np.ndarray) -> np.ndarray:
  """Return triangular filters (len(at), len(corners) - 2), with one peak at each inner corner."""
  offsets = at[:, None] - corners
  widths = np.diff(corners)
  rising = offsets[:, :-2] / widths[:-1]
  falling = -offsets[:, 2:] / widths[1:]
  return np.maximum(0.0, np.minimum(rising, falling))


def _htk_mel(hertz: float | np.ndarray) -> np.ndarray:
  return 1127.0 * np.log(1.0 + np.asarray(hertz) / 700.0)


def _slaney_mel(hertz: float) -> float:
  """Return Slaney mels: linear below 1000 Hz (15 mels), then 27 mels per factor of 6.4."""
  if hertz < 1000.0:
    return 3.0 * hertz / 200.0
  return 15.0 + np.log(hertz / 1000.0) * 27.0 / np.log(6.4)


def _slaney_hertz(mels: np.ndarray) -> np.ndarray:
  linear = 200.0 * mels / 3.0
  logarithmic = 1000.0 * np.exp(np.log(6.4) / 27.0 * (mels - 15.0))
  return np.where(mels < 15.0, linear, logarithmic)
