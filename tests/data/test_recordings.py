"""Recordings: PCM wave files of every width, and errors for other files."""

import wave

import numpy as np
import pytest

from tfm.core import errors
from tfm.data.recordings import read_audio


def write(path, samples, width, channels=1, rate=8000):
  """Write integers of a given width to a wave file."""
  data = np.asarray(samples, '<i4')
  raw = (
    (data + 128).astype(np.uint8) if width == 1 else data.view(np.uint8).reshape(-1, 4)[:, :width]
  )
  with wave.open(str(path), 'wb') as file:
    file.setparams((channels, width, rate, 0, 'NONE', ''))
    file.writeframes(raw.tobytes())


@pytest.mark.parametrize('width', [1, 2, 3, 4])
def test_samples_are_fractions_of_full_scale(tmp_path, width):
  full = 2 ** (8 * width - 1)
  write(tmp_path / 'a.wav', [0, full // 2, -full, full // 4, -1], width)
  samples, rate = read_audio(tmp_path / 'a.wav')
  assert samples.dtype == np.float32
  np.testing.assert_allclose(samples, [0, 0.5, -1, 0.25, -1 / full], atol=1e-9)
  assert rate == 8000


def test_channels_are_averaged(tmp_path):
  write(tmp_path / 'a.wav', [1000, 3000, -200, 0], 2, channels=2, rate=44_100)
  samples, rate = read_audio(tmp_path / 'a.wav')
  np.testing.assert_allclose(samples, np.array([2000, -100]) / 32_768)
  assert rate == 44_100


def test_other_files_are_named(tmp_path):
  with pytest.raises(errors.UserError, match=r'nowhere.wav: cannot be read'):
    read_audio(tmp_path / 'nowhere.wav')
  write(tmp_path / 'empty.wav', [], 2)
  with pytest.raises(errors.UserError, match=r'empty.wav: holds no samples'):
    read_audio(tmp_path / 'empty.wav')
  (tmp_path / 'text.wav').write_text('no sound')
  with pytest.raises(errors.UserError, match=r'text.wav: '):
    read_audio(tmp_path / 'text.wav')
