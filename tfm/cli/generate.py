"""Continue prompts with the model of a checkpoint, or transcribe recordings, and print the text.

tfm generate --checkpoint=runs/1 --prompt='def ' --max_new_tokens=64 --temperature=0.8
tfm generate --checkpoint=runs/1 --prompt_file=a.txt --prompt_file=b.txt --stop='class ' --json
tfm generate --checkpoint=runs/1 --prompt='def ' --temperature=0 --draft=runs/small --draft_tokens=4
tfm generate --checkpoint=whisper-tiny.en --audio=a.wav --audio=b.wav
"""

from collections.abc import Iterable, Iterator
import itertools
import json
from pathlib import Path
import sys
from typing import TYPE_CHECKING, Any

from absl import flags

from tfm.cli import flags as command
from tfm.core import errors

if TYPE_CHECKING:
  from tfm.generate.typist import Typist

FLAGS = command.new()
CHECKPOINT = flags.DEFINE_string(
  'checkpoint', None, 'the --workdir of a training run, or a published folder.', required=True, flag_values=FLAGS
)
PROMPT = flags.DEFINE_multi_string('prompt', [], 'text to go on from; may be given again.', flag_values=FLAGS)
PROMPT_FILE = flags.DEFINE_multi_string('prompt_file', [], 'a file of it; may be given again.', flag_values=FLAGS)
AUDIO = flags.DEFINE_multi_string(
  'audio', [], 'a recording to transcribe (wave, or what soundfile reads); may be given again.', flag_values=FLAGS
)
LANGUAGE = flags.DEFINE_string(
  'language', None, 'of the recordings, such as en; a multilingual model detects it by default.', flag_values=FLAGS
)
TASK = flags.DEFINE_string(
  'task', None, 'of a multilingual model of speech: transcribe, or translate to English.', flag_values=FLAGS
)
STOP = flags.DEFINE_multi_string('stop', [], 'text before which a row ends; may be given again.', flag_values=FLAGS)
SEED = flags.DEFINE_integer('seed', 0, 'the same seed gives the same text.', flag_values=FLAGS)
INT8 = flags.DEFINE_bool('int8', False, 'weights of one byte: faster, not quite the same.', flag_values=FLAGS)
STREAM = flags.DEFINE_bool(
  'stream', None, 'print text as it comes; the default for one prompt on a terminal.', flag_values=FLAGS
)
JSON = flags.DEFINE_bool('json', False, 'print a JSON object a prompt: prompt and text.', flag_values=FLAGS)
flags.DEFINE_integer(
  'max_new_tokens', 64, 'how many tokens to add; with --audio up to the end of the positions.', flag_values=FLAGS
)
flags.DEFINE_integer('min_new_tokens', 0, 'how many tokens to add before the text may end.', flag_values=FLAGS)
flags.DEFINE_float(
  'temperature', 1.0, '0: the likeliest token, the default with --audio; above 1: bolder.', flag_values=FLAGS
)
flags.DEFINE_integer('top_k', None, 'draw from the so many likeliest tokens.', flag_values=FLAGS)
flags.DEFINE_float('top_p', None, 'draw from the likeliest tokens of this probability together.', flag_values=FLAGS)
flags.DEFINE_float('min_p', None, 'draw from tokens at least so likely, of the likeliest.', flag_values=FLAGS)
flags.DEFINE_float('repetition_penalty', 1.0, 'above 1: less of what was said before.', flag_values=FLAGS)
flags.DEFINE_float('frequency_penalty', 0.0, 'taken off for each time it was said.', flag_values=FLAGS)
flags.DEFINE_float('presence_penalty', 0.0, 'taken off once it was said.', flag_values=FLAGS)
flags.DEFINE_integer('no_repeat_ngram', None, 'say no so many tokens in a row twice.', flag_values=FLAGS)
LENGTH = flags.DEFINE_integer(
  'length', None, 'the longest row, prompt and answer, where positions are stretched by that.', flag_values=FLAGS
)
CACHE = flags.DEFINE_string(
  'cache', 'dense', 'how earlier tokens are kept: dense, ring, int8, paged, "int8(of=ring)".', flag_values=FLAGS
)
flags.DEFINE_integer('prefill_chunk', None, 'read the prompt so many tokens at a time.', flag_values=FLAGS)
flags.DEFINE_string('prompt_cache', None, 'a file for what is cached of the prompt.', flag_values=FLAGS)
flags.DEFINE_integer('beams', 1, 'search for the likeliest text with so many beams.', flag_values=FLAGS)
flags.DEFINE_float('length_penalty', 1.0, 'beams: above 0 for longer texts.', flag_values=FLAGS)
DRAFT = flags.DEFINE_string(
  'draft', None, 'who guesses tokens for fewer passes: ngram, mtp, or a checkpoint.', flag_values=FLAGS
)
flags.DEFINE_integer('draft_tokens', 4, 'how many tokens to guess at a time.', flag_values=FLAGS)
_OPTIONS = (
  'max_new_tokens', 'min_new_tokens', 'temperature', 'top_k', 'top_p', 'min_p',
  'repetition_penalty', 'frequency_penalty', 'presence_penalty', 'no_repeat_ngram',
  'prefill_chunk', 'prompt_cache', 'beams', 'length_penalty', 'draft_tokens',
)  # fmt: skip


def main() -> None:
  """Prints the texts."""
  prompts = [*PROMPT.value, *map(_read, PROMPT_FILE.value)]
  if AUDIO.value:
    _transcribe(bool(prompts))
    return
  if not prompts:
    raise errors.UserError('--prompt: is missing. Want text to go on from, here or in a --prompt_file.')
  spec, params, vocabulary = _load('checkpoint', CHECKPOINT.value, LENGTH.value)[:3]
  one = len(prompts) == 1 and not JSON.value and FLAGS['beams'].value == 1
  live = STREAM.value if STREAM.value is not None else sys.stdout.isatty() and one
  if live and not one:
    raise errors.UserError('--stream: prints one text as it comes. Want one prompt, and neither --json nor --beams.')
  from tfm.generate.typist import Typist

  contexts = [() if spec.encoder is not None else vocabulary.prompt(prompt) for prompt in prompts]
  typists = [Typist(vocabulary, STOP.value, prompt_ids=ids) for ids in contexts]
  shown = ['' if spec.encoder is not None else prompt for prompt in prompts]
  if live:
    print(shown[0], end='', flush=True)
  for texts in _type(spec, params, vocabulary, prompts, typists):
    if live:
      print(texts[0], end='', flush=True)
  if live:
    print()
    return
  for prompt, before, typist in zip(prompts, shown, typists, strict=True):
    record = {'prompt': prompt, 'text': typist.text}
    print(json.dumps(record, ensure_ascii=False) if JSON.value else before + typist.text)


def _transcribe(prompted: bool) -> None:
  """Print the text of each recording."""
  from tfm.cli.audio import transcripts
  from tfm.generate import prepare

  if prompted or STREAM.value:
    other = '--prompt' if prompted else '--stream'
    raise errors.UserError(f'--audio: does not go with {other}. Expected one of them.')
  m = _load('checkpoint', CHECKPOINT.value, LENGTH.value)
  options = _options(m.tokenizer) | {'stop': STOP.value}
  if not FLAGS['temperature'].present:
    options['temperature'] = 0.0
  if not FLAGS['max_new_tokens'].present and m.spec.max_positions is not None:
    options['max_new_tokens'] = m.spec.max_positions - 4  # start, language, task, no timestamps
  m = m._replace(params=prepare(m.spec, m.params, int8=INT8.value))
  for found in transcripts(m, CHECKPOINT.value, AUDIO.value, LANGUAGE.value, TASK.value, options):
    record = {'audio': found.path, 'text': found.text, 'language': found.language}
    print(json.dumps(record, ensure_ascii=False) if JSON.value else found.text, flush=True)


def _options(vocabulary: Any) -> dict[str, Any]:
  """Return the options of `tfm.generate` that the flags name."""
  import jax

  from tfm.core import config
  from tfm.parts.cache import Cache
  from tfm.parts.context import Run

  run = config.validate(Run(loop='unroll', cache=config.parse(Cache, CACHE.value, '--cache')))
  own = {'key': jax.random.key(SEED.value), 'run': run, 'draft': _draft(vocabulary), 'tokenizer': vocabulary}
  return {name: FLAGS[name].value for name in _OPTIONS} | own


def _type(spec: Any, params: Any, vocabulary: Any, prompts: list[str], typists: list['Typist']) -> Iterator[list[str]]:
  """What each typist adds at each step."""
  from tfm.generate import generate, prepare, stream
  from tfm.hub import generation_options

  options = _options(vocabulary) | generation_options(CHECKPOINT.value)
  if spec.encoder is not None:
    options.setdefault('decoder_start', vocabulary.pad)
  ready = prepare(spec, params, int8=INT8.value)
  if options['beams'] == 1:
    steps: Iterable[Iterable[int]] = stream(spec, ready, prompts, **options)
  else:
    ids = [vocabulary.prompt(prompt).tolist() for prompt in prompts]
    steps = itertools.zip_longest(*generate(spec, ready, ids, stop=STOP.value, **options), fillvalue=-1)
  for tokens in steps:
    yield [typist.push(int(token)) for typist, token in zip(typists, tokens, strict=True)]
    if all(typist.done for typist in typists):
      break
  yield [typist.flush() for typist in typists]


def _draft(vocabulary: Any) -> Any:
  """Who guesses, or None."""
  from tfm.generate import Later, Lookup, Smaller, prepare

  known = {'ngram': Lookup, 'mtp': Later}
  if DRAFT.value is None or DRAFT.value in known:
    return DRAFT.value and known[DRAFT.value]()
  spec, params, other = _load('draft', DRAFT.value)[:3]
  if not other.same(vocabulary):
    raise errors.UserError(f'--draft: {DRAFT.value} has another vocabulary than --checkpoint. Want the same tokens.')
  return Smaller(spec, prepare(spec, params))


def _load(flag: str, path: str, length: int | None = None) -> Any:
  """The model of a folder, ours or a published one, with the tokenizer that it must have."""
  from tfm.hub import load
  from tfm.model.outputs import no_language_model

  m = load(path, length=length)
  if m.spec.lm is None:
    raise errors.UserError(f'--{flag}: {path} {no_language_model(m.spec)}')
  if m.tokenizer is None:
    raise errors.UserError(f'--{flag}: {path} has no tokenizer. Want a folder with one, such as a tokenizer.json.')
  return m


def _read(name: str) -> str:
  try:
    return Path(name).read_text('utf-8')
  except UnicodeDecodeError as e:
    raise errors.UserError(f'--prompt_file: {name} is not UTF-8 text (byte {e.start}).') from None
