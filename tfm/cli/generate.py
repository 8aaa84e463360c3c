"""Continue prompts, chat, or transcribe recordings.

Examples:
  tfm generate --checkpoint=runs/1 --prompt='def ' --temperature=0.8
  tfm generate --checkpoint=Qwen2.5-0.5B-Instruct --chat
  tfm generate --checkpoint=whisper-tiny.en --audio=a.wav

A published folder's settings (end tokens, sampling, beams) are the defaults."""

from collections.abc import Iterable, Iterator, Sequence
import itertools
import json
from pathlib import Path
import sys
from typing import TYPE_CHECKING, Any

from absl import flags

from tfm.cli import flags as command
from tfm.core import errors

if TYPE_CHECKING:
  from tfm.generate.detokenizer import Detokenizer
  from tfm.hub import Loaded

FLAGS = command.new()
FLAGS.group('Input')
CHECKPOINT = flags.DEFINE_string(
  'checkpoint', None, 'the --workdir of a run, or a published folder', required=True,
  flag_values=FLAGS,
)  # fmt: skip
PROMPT = flags.DEFINE_multi_string(
  'prompt', [], 'a text to continue; repeat for more', flag_values=FLAGS
)
PROMPT_FILE = flags.DEFINE_multi_string(
  'prompt_file', [], 'a file with a prompt; repeat for more', flag_values=FLAGS
)
CHAT = flags.DEFINE_bool(
  'chat', False, 'prompts are chat messages; without any, converse', flag_values=FLAGS
)
AUDIO = flags.DEFINE_multi_string(
  'audio', [], 'a recording to transcribe; repeat for more', flag_values=FLAGS
)
FLAGS.group('Length and output')
flags.DEFINE_integer('max_new_tokens', 64, 'at most this many new tokens', flag_values=FLAGS)
STOP = flags.DEFINE_multi_string(
  'stop', [], 'end before this text; repeat for more', flag_values=FLAGS
)
STREAM = flags.DEFINE_bool(
  'stream', None, 'print text while it is generated. The default for one prompt on a terminal',
  flag_values=FLAGS,
)  # fmt: skip
JSON = flags.DEFINE_bool('json', False, 'print one JSON object per prompt', flag_values=FLAGS)
FLAGS.group('Sampling')
flags.DEFINE_float('temperature', 1.0, '0 is greedy; above 1 is more random', flag_values=FLAGS)
flags.DEFINE_integer('top_k', None, 'sample among the k most probable tokens', flag_values=FLAGS)
flags.DEFINE_float(
  'top_p', None, 'sample among top tokens of this total probability', flag_values=FLAGS
)
flags.DEFINE_float(
  'min_p', None, 'keep tokens of at least this share of the top one', flag_values=FLAGS
)
SEED = flags.DEFINE_integer('seed', 0, 'the random seed', flag_values=FLAGS)
FLAGS.group('Speed and memory')
CACHE = flags.DEFINE_string(
  'cache', 'dense', 'dense, ring, int8, paged, or "int8(of=ring)"', flag_values=FLAGS
)
INT8 = flags.DEFINE_bool(
  'int8', False, 'quantize weights to int8: faster, slightly inexact', flag_values=FLAGS
)
QUANTIZE = flags.DEFINE_string(
  'quantize',
  None,
  'store weights as int8, fp8 or int4, with qwix',
  flag_values=FLAGS,
)
DRAFT = flags.DEFINE_string(
  'draft', None, 'speculative decoding: ngram, mtp, or a checkpoint', flag_values=FLAGS
)
FLAGS.group('Penalties', hidden=True)
flags.DEFINE_float(
  'repetition_penalty', 1.0, 'above 1 makes tokens of the text less probable', flag_values=FLAGS
)
flags.DEFINE_float(
  'frequency_penalty', 0.0, 'subtracted from a logit for each occurrence', flag_values=FLAGS
)
flags.DEFINE_float(
  'presence_penalty', 0.0, 'subtracted once from logits of tokens that occur', flag_values=FLAGS
)
flags.DEFINE_integer(
  'no_repeat_ngram', None, 'never repeat a sequence of this many tokens', flag_values=FLAGS
)
flags.DEFINE_integer('min_new_tokens', 0, 'at least this many new tokens', flag_values=FLAGS)
FLAGS.group('Beam search', hidden=True)
flags.DEFINE_integer('beams', 1, 'beam search with this many beams', flag_values=FLAGS)
flags.DEFINE_float('length_penalty', 1.0, 'above 0 prefers longer texts', flag_values=FLAGS)
FLAGS.group('Chat and speech', hidden=True)
SYSTEM = flags.DEFINE_string('system', None, '--chat: the system message', flag_values=FLAGS)
TOOLS = flags.DEFINE_string(
  'tools', None, '--chat: a JSON file with a list of functions that the model may call',
  flag_values=FLAGS,
)  # fmt: skip
VARIABLES = flags.DEFINE_string(
  'template_variables', None,
  '--chat: a JSON object of further template variables, such as {"enable_thinking": false}',
  flag_values=FLAGS,
)  # fmt: skip
LANGUAGE = flags.DEFINE_string(
  'language', None, '--audio: the language, such as en. Multilingual models detect it by default',
  flag_values=FLAGS,
)  # fmt: skip
TASK = flags.DEFINE_string(
  'task', None, '--audio: transcribe, or translate to English', flag_values=FLAGS
)
FLAGS.group('Loading and caching', hidden=True)
ADAPTER = command.define_adapter(FLAGS)
IGNORED = command.define_ignored(FLAGS)
IGNORE = flags.DEFINE_multi_string(
  'ignore_settings', [], 'a generation setting of the folder to ignore; repeat for more',
  flag_values=FLAGS,
)  # fmt: skip
LENGTH = flags.DEFINE_integer(
  'length', None, 'the longest sequence, prompt and answer, for RoPE scaling that depends on it',
  flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
  'prefill_chunk', None, 'process the prompt in chunks of this many tokens', flag_values=FLAGS
)
flags.DEFINE_string(
  'prompt_cache', None, 'a file that keeps the cached keys and values of the prompt',
  flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
  'draft_tokens', 4, '--draft: guess this many tokens at a time', flag_values=FLAGS
)
_OPTIONS = (
  'max_new_tokens', 'min_new_tokens', 'temperature', 'top_k', 'top_p', 'min_p',
  'repetition_penalty', 'frequency_penalty', 'presence_penalty', 'no_repeat_ngram',
  'prefill_chunk', 'prompt_cache', 'beams', 'length_penalty', 'draft_tokens',
)  # fmt: skip


def main() -> None:
  """Print the texts."""
  prompts = [*PROMPT.value, *map(_read, PROMPT_FILE.value)]
  if AUDIO.value:
    _transcribe(bool(prompts))
    return
  if CHAT.value:
    from tfm.cli.chat import converse

    m = _load('checkpoint', CHECKPOINT.value, LENGTH.value)
    converse(_prepared(m), prompts, _chat_fields(), reply, JSON.value)
    return
  for flag in (SYSTEM, TOOLS, VARIABLES):
    if flag.value is not None:
      raise errors.UserError(f'--{flag.name}: needs --chat. Expected both.')
  if not prompts:
    raise errors.UserError(
      '--prompt: is missing. Expected text to continue, here or in a --prompt_file.'
    )
  m = _load('checkpoint', CHECKPOINT.value, LENGTH.value)
  from tfm.generate.detokenizer import Detokenizer
  from tfm.generate.options import several

  given = m.options(prompts, _explicit(m.tokenizer), ignore=IGNORE.value)
  one = len(prompts) == 1 and not JSON.value and given.get('beams', 1) == 1
  live = STREAM.value if STREAM.value is not None else sys.stdout.isatty() and one
  if live and not one:
    beams = given.get('beams', 1)
    hint = f' The folder sets {beams} beams; --beams=1 disables them.' if beams > 1 else ''
    raise errors.UserError(
      '--stream: prints one text while it is generated. Expected one prompt, no --json and no '
      f'beams.{hint}'
    )
  stops = STOP.value or several(given.pop('stop', ()))
  if m.spec.encoder is None:
    shown, before = prompts, [m.tokenizer.prompt(prompt).tolist() for prompt in prompts]
  else:  # the output does not continue the prompt
    shown, before = [''] * len(prompts), [[]] * len(prompts)
  detokenizers = [Detokenizer(m.tokenizer, stops, ids) for ids in before]
  if live:
    print(shown[0], end='', flush=True)
  m = _prepared(m)
  for texts in _type(m, prompts, detokenizers, given, stops):
    if live:
      print(texts[0], end='', flush=True)
  if live:
    print()
    return
  for prompt, start, detokenizer in zip(prompts, shown, detokenizers, strict=True):
    record = {'prompt': prompt, 'text': detokenizer.text}
    print(json.dumps(record, ensure_ascii=False) if JSON.value else start + detokenizer.text)


def reply(m: Any, ids: Sequence[int]) -> Iterator[str]:
  """Yield the text of a reply to a conversation, piece by piece."""
  from tfm.generate.detokenizer import Detokenizer
  from tfm.generate.options import several

  given = m.options([ids], m.chat_options(ids, _explicit(m.tokenizer)), ignore=IGNORE.value)
  stops = STOP.value or several(given.pop('stop', ()))
  for (text,) in _type(m, [list(ids)], [Detokenizer(m.tokenizer, stops, ())], given, stops):
    yield text


def _chat_fields() -> dict[str, Any]:
  """Return the arguments of `Loaded.chat_prompt` that the flags give, and the system message."""
  tools = None if TOOLS.value is None else _json('tools', _read(TOOLS.value), list)
  variables = (
    None if VARIABLES.value is None else _json('template_variables', VARIABLES.value, dict)
  )
  return {'system': SYSTEM.value, 'tools': tools, 'variables': variables}


def _json(flag: str, text: str, kind: type) -> Any:
  expected = 'a JSON list' if kind is list else 'a JSON object'
  try:
    found = json.loads(text)
  except ValueError as error:
    raise errors.UserError(f'--{flag}: is not JSON ({error}). Expected {expected}.') from None
  if not isinstance(found, kind):
    raise errors.UserError(f'--{flag}: is {text:.60}. Expected {expected}.')
  return found


def _transcribe(prompted: bool) -> None:
  """Print the text of each recording."""
  from tfm.cli.audio import transcripts

  for other, is_set in {'prompt': prompted, 'stream': STREAM.value, 'chat': CHAT.value}.items():
    if is_set:
      raise errors.UserError(f'--audio: cannot be combined with --{other}. Expected only one.')
  m = _load('checkpoint', CHECKPOINT.value, LENGTH.value)
  options = _explicit(m.tokenizer) | {'stop': STOP.value, 'ignore': IGNORE.value}
  if 'temperature' not in options and not m.files:
    options['temperature'] = 0.0
  if 'max_new_tokens' not in options and m.spec.max_positions is not None:
    options['max_new_tokens'] = m.spec.max_positions - 4  # start, language, task, no timestamps
  m = _prepared(m)
  for found in transcripts(m, CHECKPOINT.value, AUDIO.value, LANGUAGE.value, TASK.value, options):
    record = {'audio': found.path, 'text': found.text, 'language': found.language}
    print(json.dumps(record, ensure_ascii=False) if JSON.value else found.text, flush=True)


def _prepared(m: Any) -> Any:
  """Return the model with parameters for decoding, quantized if a flag is set."""
  if QUANTIZE.value is not None:
    from tfm.core import config
    from tfm.parts.quantize import Quantize

    m = m.quantized(config.parse(Quantize, QUANTIZE.value, '--quantize'))
  return m.prepared(int8=INT8.value)


def _explicit(vocabulary: Any) -> dict[str, Any]:
  """Return the options of `tfm.generate` that flags set, with the key and the run."""
  import jax

  from tfm.core import config
  from tfm.parts.cache import Cache
  from tfm.parts.context import Run

  run = config.validate(Run(loop='unroll', cache=config.parse(Cache, CACHE.value, '--cache')))
  given = {name: FLAGS[name].value for name in _OPTIONS if FLAGS[name].present}
  draft = {} if DRAFT.value is None else {'draft': _draft(vocabulary)}
  return {'key': jax.random.key(SEED.value), 'run': run, **draft, **given}


def _type(
  m: 'Loaded',
  prompts: list[Any],
  detokenizers: list['Detokenizer'],
  options: dict[str, Any],
  stops: Sequence[str],
) -> Iterator[list[str]]:
  """Yield the new text of each row at each step."""
  from tfm.generate import generate, stream

  options = {'tokenizer': m.tokenizer, **options}
  if options.get('beams', 1) == 1:
    steps: Iterable[Iterable[int]] = stream(m.spec, m.params, prompts, **options)
  else:
    ids = [_ids(m, prompt) for prompt in prompts]
    steps = itertools.zip_longest(
      *generate(m.spec, m.params, ids, stop=stops, **options), fillvalue=-1
    )
  for tokens in steps:
    yield [
      detokenizer.push(int(token)) for detokenizer, token in zip(detokenizers, tokens, strict=True)
    ]
    if all(detokenizer.done for detokenizer in detokenizers):
      break
  yield [detokenizer.flush() for detokenizer in detokenizers]


def _ids(m: 'Loaded', prompt: str | list[int]) -> list[int]:
  if not isinstance(prompt, str):
    return prompt
  assert m.tokenizer is not None  # _load requires one
  return m.tokenizer.prompt(prompt).tolist()


def _draft(vocabulary: Any) -> Any:
  """Return the draft model of `--draft`, which must share the vocabulary."""
  from tfm.generate import LookupDraft, ModelDraft, MTPDraft, prepare

  known = {'ngram': LookupDraft, 'mtp': MTPDraft}
  if DRAFT.value in known:
    return known[DRAFT.value]()
  m = _load('draft', str(DRAFT.value))
  if not m.tokenizer.same(vocabulary):
    raise errors.UserError(
      f'--draft: the vocabulary of {DRAFT.value} differs from that of --checkpoint. Expected the '
      'same.'
    )
  return ModelDraft(m.spec, prepare(m.spec, m.params))


def _load(flag: str, path: str, length: int | None = None) -> Any:
  """Return the language model of a checkpoint or published folder, which must have a tokenizer."""
  from tfm.hub import load
  from tfm.model.outputs import no_language_model

  own: dict[str, Any] = (
    {'ignore': IGNORED.value, 'adapter': ADAPTER.value} if flag == 'checkpoint' else {}
  )
  m = load(path, length=length, **own)
  if m.spec.lm is None:
    raise errors.UserError(f'--{flag}: {path} {no_language_model(m.spec)}')
  if m.tokenizer is None:
    raise errors.UserError(
      f'--{flag}: {path} has no tokenizer. Expected a folder with one, such as a tokenizer.json.'
    )
  return m


def _read(name: str) -> str:
  try:
    return Path(name).read_text('utf-8')
  except UnicodeDecodeError as e:
    raise errors.UserError(f'--prompt_file: {name} is not UTF-8 text (byte {e.start}).') from None
