r"""Measure word error rate and speed of a Whisper checkpoint on transcribed clips.

    python scripts/bench/whisper.py --checkpoint=whisper-tiny.en --clips=en_US_f_Allison \
      --transcripts=sounds.txt.gz
    python scripts/bench/whisper.py ... --rounds=3 --rival_clips=16    # speed of transformers too

A line of the transcripts is `name: text`, and the clip is CLIPS/name.wav. Lines with a bracket
(sounds without speech) are skipped. Of the others, sorted by name, every sixth is used. Texts are
compared in lower case, without punctuation, and with numbers as words. `--rounds` needs the extra
`bench` (PyTorch and transformers).
"""

import argparse
import gzip
from pathlib import Path
import re
from typing import Any

import harness
import numpy as np

from tfm import hub
from tfm.data.processors import resample
from tfm.data.progress import Progress
from tfm.data.recordings import read_audio
from tfm.generate import generate, prepare

_ONES, _TENS = map(
  str.split,
  (
    'zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen '
    'fifteen sixteen seventeen eighteen nineteen',
    'twenty thirty forty fifty sixty seventy eighty ninety',
  ),
)
_ORDINALS = {
  'one': 'first',
  'two': 'second',
  'three': 'third',
  'five': 'fifth',
  'eight': 'eighth',
  'nine': 'ninth',
}
#: Telephone keys in the transcripts, and their spoken form.
_KEYS = {'*': ' star ', '#': ' pound '}


def number(n: int) -> str:
  """Return the words of a number below a million."""
  if n < 20:
    return _ONES[n]
  if n < 100:
    return ' '.join([_TENS[n // 10 - 2], *([_ONES[n % 10]] if n % 10 else [])])
  size, name = (1000, 'thousand') if n >= 1000 else (100, 'hundred')
  return ' '.join([number(n // size), name, *([number(n % size)] if n % size else [])])


def ordinal(n: int) -> str:
  """Return the words of an ordinal number below a million."""
  *before, last = number(n).split()
  last = _ORDINALS.get(last) or (
    last[:-1] + 'ieth' if last.endswith('y') else last.removesuffix('ve') + 'th'
  )
  return ' '.join([*before, last.replace('twelth', 'twelfth')])


def words(text: str) -> list[str]:
  """Return the normalised words of a text, for comparison."""
  text = text.lower().replace("'", '')
  text = re.sub(r'(\d+)(?:st|nd|rd|th)\b', lambda m: f' {ordinal(int(m[1]))} ', text)
  text = re.sub(r'\d+', lambda m: f' {number(int(m[0]))} ', text)
  text = re.sub(r'[*#]', lambda m: _KEYS[m[0]], text)
  return re.sub(r'[^a-z]+', ' ', text).split()


def edits(truth: list[str], found: list[str]) -> int:
  """Return the number of words to insert, delete or replace."""
  row = list(range(len(found) + 1))
  for i, word in enumerate(truth, 1):
    before, row[0] = row[0], i
    for j, other in enumerate(found, 1):
      before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
  return row[-1]


def read_clips(
  folder: Path, transcripts: Path, every: int, rate: int
) -> dict[str, tuple[np.ndarray, str]]:
  """Return the samples and the text of each clip, by name.

  Args:
    folder: folder of the clips.
    transcripts: file of the texts.
    every: use every n-th clip.
    rate: samples per second.

  Returns:
    Name -> (samples, text).
  """
  raw = transcripts.read_bytes()
  text = (gzip.decompress(raw) if transcripts.suffix == '.gz' else raw).decode('utf-8')
  lines = dict(
    line.split(':', 1) for line in text.splitlines() if ':' in line and not line.startswith(';')
  )
  names = sorted(
    n for n, line in lines.items() if '[' not in line and (folder / f'{n}.wav').is_file()
  )
  found = {}
  for name in names[::every]:
    clip, own = read_audio(folder / f'{name}.wav')
    found[name] = (clip if own == rate else resample(clip, own, rate)), lines[name]
  return found


def transcriber(checkpoint: str, features: np.ndarray, batch: int) -> Any:
  """Return a call that transcribes all clips with tfm.

  Args:
    checkpoint: folder of the model.
    features: log-mel features of the clips.
    batch: number of clips per batch.

  Returns:
    A function that returns the texts.
  """
  m = hub.load(checkpoint)
  params, options = prepare(m.spec, m.params), hub.generation_options(checkpoint)
  limit = m.spec.max_positions - len(options['decoder_start'])

  def run() -> list[str]:
    texts: list[str] = []
    with Progress('transcribing', len(features), of_bytes=False) as bar:
      for start in range(0, len(features), batch):
        part = features[start : start + batch]
        texts += generate(
          m.spec, params, part, tokenizer=m.tokenizer, temperature=0, max_new_tokens=limit,
          **options
        )  # fmt: skip
        bar.advance(len(part))
    return texts

  return run


def rival(checkpoint: str, features: np.ndarray, batch: int) -> Any:
  """Return a call that transcribes all clips with transformers.

  Args:
    checkpoint: folder of the model.
    features: log-mel features of the clips.
    batch: number of clips per batch.

  Returns:
    A function that returns token ids.
  """
  import torch
  import transformers

  model = transformers.WhisperForConditionalGeneration.from_pretrained(checkpoint).eval()

  def run() -> list[Any]:
    with torch.no_grad():
      parts = [torch.tensor(features[i : i + batch]) for i in range(0, len(features), batch)]
      return [model.generate(part, do_sample=False) for part in parts]

  return run


def main() -> None:
  """Transcribe, compare and print the results."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--checkpoint', required=True)
  parser.add_argument('--clips', type=Path, required=True)
  parser.add_argument('--transcripts', type=Path, required=True)
  parser.add_argument('--every', type=int, default=6)
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--rounds', type=int, default=0)
  parser.add_argument('--rival_clips', type=int, default=16)
  args = parser.parse_args()
  processor = hub.load(args.checkpoint).processor
  clips = read_clips(args.clips, args.transcripts, args.every, processor.sampling_rate)
  audio = [clip for clip, _ in clips.values()]
  features = processor(audio=audio, sampling_rate=processor.sampling_rate)['input_features']
  texts = transcriber(args.checkpoint, features, args.batch)()
  wrong = total = 0
  for (name, (_, text)), found in zip(clips.items(), texts, strict=True):
    truth = words(text)
    n = edits(truth, words(found))
    wrong, total = wrong + n, total + len(truth)
    if n:
      print(f'{n}/{len(truth)} {name}: {text!r} -> {found!r}')
  seconds = sum(map(len, audio)) / processor.sampling_rate
  print(
    f'{len(clips)} clips, {seconds:.0f} s: word error rate {wrong}/{total} = '
    f'{100 * wrong / total:.1f}%'
  )
  if args.rounds:
    part = features[: args.rival_clips]
    both = {
      'tfm': harness.OwnProcess(transcriber, args.checkpoint, part, args.batch),
      'transformers': harness.OwnProcess(rival, args.checkpoint, part, args.batch),
    }
    times = harness.alternate(both, args.rounds)
    for name, found in times.items():
      print(f'{name}: {np.median(found):.2f} s for {len(part)} clips')
    print(
      f'tfm runs at {harness.ratio(times["transformers"], times["tfm"]):.2f} times the rate of '
      'transformers'
    )


if __name__ == '__main__':
  main()
