"""Recordings to text, for `tfm generate --audio`."""

from collections.abc import Iterator, Mapping, Sequence
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfm.core import errors
from tfm.data.processors import AudioProcessor, resample
from tfm.data.progress import Progress
from tfm.data.recordings import read_audio
from tfm.generate import detect_language
from tfm.hub import Loaded, languages
from tfm.hub.files import GENERATION
from tfm.hub.speech import multilingual


class Transcript(NamedTuple):
  """The text of a recording; `language` is None if the model has one only or did not detect it."""

  path: str
  text: str
  language: str | None


def transcripts(
  m: Loaded,
  folder: str,
  paths: Sequence[str],
  language: str | None,
  task: str | None,
  options: Mapping[str, Any],
) -> Iterator[Transcript]:
  """Yield the text of each recording.

  A recording longer than the processor's window (30 seconds for Whisper) is split into windows. A
  word at a boundary may be lost.

  Args:
    m: The model, its parameters prepared for decoding.
    folder: Its folder, for errors.
    paths: The recordings. They are resampled to the model's rate.
    language: The language; None lets a multilingual model detect it in the first window.
    task: 'transcribe' or 'translate'; None is the model's default.
    options: Options of `tfm.generate`.

  Raises:
    UserError: The model reads no audio, or a file cannot be read.
  """
  processor: Any = m.processor
  if not isinstance(processor, AudioProcessor):
    raise errors.UserError(
      f'--audio: {folder} configures no audio processor. Expected a speech model.'
    )
  read: Any = processor  # keywords differ by class
  clips = [_windows(path, processor) for path in paths]
  fields = m.files.json(GENERATION)
  detects = language is None and multilingual(fields)
  with Progress('transcribing', sum(map(len, clips)), of_bytes=False) as bar:
    for path, windows in zip(paths, clips, strict=True):
      found, texts = language, list[str]()
      for window in windows:
        features = read(audio=window, sampling_rate=processor.sampling_rate)
        if detects and found is None:
          start = fields['decoder_start_token_id']
          (found,) = detect_language(
            m.spec, m.params, features, languages(fields), start, run=options['run']
          )
        texts += m.generate(features, language=found, task=task, **options)
        bar.advance(1)
      yield Transcript(path, ' '.join(text.strip() for text in texts), found)


def _windows(path: str, processor: AudioProcessor) -> list[np.ndarray]:
  """Return a recording at the model's sampling rate, in windows of the processor's length."""
  clip, rate = read_audio(Path(path))
  clip = clip if rate == processor.sampling_rate else resample(clip, rate, processor.sampling_rate)
  seconds = getattr(processor, 'chunk_length', None)
  if seconds is None:
    return [clip]
  size = seconds * processor.sampling_rate
  return [clip[a:b] for a, b in itertools.pairwise([*range(0, len(clip), size), len(clip)])]
