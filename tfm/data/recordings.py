"""Read audio files."""

from pathlib import Path
from typing import Any
import wave

import numpy as np

from tfm.core import errors


def read_audio(path: str | Path) -> tuple[np.ndarray, int]:
  """Return the samples and the sampling rate of a recording.

  The standard library reads PCM wave files. Other formats need the package soundfile.

  Args:
    path: The file.

  Returns:
    Samples float32 [time] in [-1, 1], the mean over channels, and the rate in Hz.

  Raises:
    UserError: The file cannot be read, or holds no samples.
  """
  path = Path(path).expanduser()
  try:
    samples, rate = _pcm(path)
  except (wave.Error, EOFError) as error:
    samples, rate = _other(path, error)
  except OSError as error:
    raise errors.UserError(
      f'{path}: cannot be read ({error.strerror}). Expected a recording.'
    ) from None
  if not len(samples):
    raise errors.UserError(f'{path}: holds no samples. Expected a recording.')
  return samples.mean(axis=1, dtype=np.float32), rate


def _pcm(path: Path) -> tuple[np.ndarray, int]:
  """Return float32 [samples, channels] and the rate of a wave file of 8, 16, 24 or 32 bits."""
  with wave.open(str(path)) as file:
    data, width, channels, rate = (
      file.readframes(file.getnframes()), file.getsampwidth(), file.getnchannels(),
      file.getframerate(),
    )  # fmt: skip
  if width == 1:  # 8-bit samples are unsigned
    values = np.frombuffer(data, np.uint8).astype(np.float32) - 128
  elif width == 3:
    padded = np.zeros((len(data) // 3, 4), np.uint8)
    padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    values = (padded.view('<i4')[:, 0] >> 8).astype(np.float32)
  else:
    values = np.frombuffer(data, f'<i{width}').astype(np.float32)
  return (values / 2 ** (8 * width - 1)).reshape(-1, channels), rate


def _other(path: Path, error: Exception) -> tuple[np.ndarray, int]:
  try:
    import soundfile
  except ImportError:
    raise errors.UserError(
      f'{path}: is not a PCM wave file ({error}). Expected a PCM wave file, or the installed '
      f'package soundfile.'
    ) from None
  read: Any = soundfile.read
  try:
    return read(path, dtype='float32', always_2d=True)
  except soundfile.SoundFileError as other:
    raise errors.UserError(f'{path}: {other} Expected a recording.') from None
