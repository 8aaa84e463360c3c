"""How a published folder wants its model to generate, as options of `tfm.generate`."""

from collections.abc import Iterator, Mapping, Sequence
import difflib
import math
from pathlib import Path
from typing import Any

from tfm.core import errors
from tfm.data.tokenizer import Vocabulary
from tfm.generate.options import Options, several
from tfm.hub.files import CONFIG, GENERATION, FolderFiles
from tfm.hub.speech import decoder_prompt
from tfm.model.spec import Model
from tfm.zoo import bookkeeping

#: Fields of models whose decoder begins with several tokens.
_SPEECH = ('forced_decoder_ids', 'no_timestamps_token_id', 'lang_to_id')
#: Hugging Face's name of special tokens -> that of `Options`, where the value is the same.
_TOKENS = {
  'eos_token_id': 'eos',
  'forced_bos_token_id': 'forced_first',
  'forced_eos_token_id': 'forced_last',
}
#: The same for fields of any decoding, and for those of sampling alone.
_ANY = {
  'repetition_penalty': 'repetition_penalty', 'no_repeat_ngram_size': 'no_repeat_ngram',
  'stop_strings': 'stop',
  'max_new_tokens': 'max_new_tokens', 'min_new_tokens': 'min_new_tokens', 'num_beams': 'beams',
}  # fmt: skip
_SAMPLING = {'temperature': 'temperature', 'top_k': 'top_k', 'top_p': 'top_p', 'min_p': 'min_p'}
_BEAMS = {'length_penalty': 'length_penalty', 'early_stopping': 'early_stopping'}
#: The top_k of transformers where a file that asks for sampling names none.
_TOP_K = 50
#: Fields that change the text and that tfm does not support, with the values that switch them off.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
  'typical_p': (1, 1.0), 'epsilon_cutoff': (0, 0.0), 'eta_cutoff': (0, 0.0), 'top_h': (),
  'penalty_alpha': (0, 0.0),
  'encoder_repetition_penalty': (1, 1.0), 'encoder_no_repeat_ngram_size': (0,),
  'diversity_penalty': (0, 0.0),
  'num_beam_groups': (0, 1), 'exponential_decay_length_penalty': (), 'sequence_bias': ({}, []),
  'guidance_scale': (1, 1.0), 'watermarking_config': (), 'dola_layers': (),
  'token_healing': (False,),
}  # fmt: skip


def generation_options(
  path: str | Path, *, language: str | None = None, task: str | None = None
) -> dict[str, Any]:
  """Return the options of `tfm.generate` for special tokens that a folder's files name.

  `Loaded.settings` adds how tokens are sampled.

  Args:
    path: A published folder, or a checkpoint that was converted from one.
    language: The language of a multilingual speech model, such as 'en' (see `tfm.hub.speech`).
    task: The task of such a model, such as 'translate'.

  Raises:
    UserError: a file is not JSON; a language is needed, unknown, or given to another model.

  Example:
    tfm.generate(m.spec, m.params, texts, tokenizer=m.tokenizer, temperature=0,
    **generation_options(folder))
  """
  return token_options(FolderFiles.read(Path(path).expanduser()), language=language, task=task)


def token_options(
  files: FolderFiles, *, language: str | None = None, task: str | None = None
) -> dict[str, Any]:
  """Return the options for special tokens; fields of `generation_config.json` replace those of
  `config.json`.

  Args and Raises: see `generation_options`.
  """
  given = _fields(files)
  _check_ids(files)
  options = {
    ours: given[theirs] for theirs, ours in _TOKENS.items() if given.get(theirs) is not None
  }
  if isinstance(last := options.get('forced_last'), list):
    options['forced_last'] = last[0]
  if given.get('is_encoder_decoder') or given.get('decoder_start_token_id') is not None:
    options['decoder_start'] = given.get('decoder_start_token_id', given.get('bos_token_id'))
  if language or task or any(given.get(name) is not None for name in _SPEECH):
    options['decoder_start'] = decoder_prompt(given, language, task)
  if first := given.get('begin_suppress_tokens'):
    options['forbidden_first'] = sorted(first)
  words = [word for word in given.get('bad_words_ids') or [] if len(word) == 1]
  if forbidden := sorted({*(given.get('suppress_tokens') or []), *(word[0] for word in words)}):
    options['logit_bias'] = dict.fromkeys(forbidden, -math.inf)
  return options


def decoding_options(files: FolderFiles, ignore: Sequence[str] = ()) -> dict[str, Any]:
  """Return the options for how tokens are chosen, as transformers chooses them with the same files.

  Without `do_sample: true` the most probable token is chosen, or beams are searched. Where a file
  asks for sampling and names no top_k it is 50. `max_length` counts for an encoder-decoder only: 64
  new tokens are the default else.

  Args:
    files: The files beside the weights. `config.json` counts where `generation_config.json` is
    missing.
    ignore: Names of unsupported settings to go on without.

  Raises:
    UserError: the files ask for what tfm does not support.
  """
  where = GENERATION if GENERATION in files else CONFIG
  if where == GENERATION:
    _check_names(files)
  given = {name: value for name, value in files.json(where).items() if value is not None}
  if wrong := [f'{name}={value!r}' for name, value in _unsupported(given) if name not in ignore]:
    names = ', '.join(repr(name.partition('=')[0]) for name in wrong)
    raise errors.UserError(
      f'{where}: {", ".join(wrong)}: not supported by tfm, and changes the text. Expected '
      f'ignore=({names},) to '
      'generate without, or tfm.generate(m.spec, m.params, ...) with options of your own.'
    )
  options = {ours: given[theirs] for theirs, ours in _ANY.items() if given.get(theirs)}
  if options.get('beams', 1) > 1:
    options |= {ours: given[theirs] for theirs, ours in _BEAMS.items() if theirs in given}
  if not given.get('do_sample'):
    return options | {'temperature': 0.0}
  if options.get('beams', 1) > 1:
    if 'do_sample' not in ignore:
      raise errors.UserError(
        f'{where}: do_sample=True with num_beams={options["beams"]}: tfm does not sample beams. '
        "Expected ignore=('do_sample',) to search beams without sampling, or beams=1."
      )
    return options | {'temperature': 0.0}
  found = {'top_k': _TOP_K} | {
    ours: given[theirs] for theirs, ours in _SAMPLING.items() if theirs in given
  }
  if not found['top_k']:
    del found['top_k']
  return options | found


def generation_settings(
  files: FolderFiles,
  spec: Model,
  tokenizer: Vocabulary | None,
  *,
  language: str | None = None,
  task: str | None = None,
  ignore: Sequence[str] = (),
) -> dict[str, Any]:
  """Return all options of `tfm.generate` that a folder's files ask for.

  A model without such files, such as one that tfm trained, has the defaults of `tfm.generate`.

  Args:
    files: The files beside the weights.
    spec: The model, whose encoder or position table decides how lengths are counted.
    tokenizer: Its end token is used where no file names one, its padding where a decoder has no
    other start.
    language: See `generation_options`.
    task: See `generation_options`.
    ignore: See `decoding_options`.

  Raises:
    UserError: see `generation_options` and `decoding_options`.
  """
  published = CONFIG in files or GENERATION in files
  options = token_options(files, language=language, task=task)
  options |= decoding_options(files, ignore) if published else {}
  if spec.encoder is None:
    options.pop('decoder_start', None)
    return options
  if options.get('decoder_start') is None and tokenizer is not None and tokenizer.pad is not None:
    options['decoder_start'] = tokenizer.pad
  lengths = files.json(GENERATION if GENERATION in files else CONFIG)
  start = len(several(options.get('decoder_start')))
  for theirs, ours in (('max_length', 'max_new_tokens'), ('min_length', 'min_new_tokens')):
    if lengths.get(theirs) and ours not in options and lengths[theirs] > start:
      options[ours] = lengths[theirs] - start
  return options


def length_limit(
  files: FolderFiles,
  spec: Model,
  tokenizer: Vocabulary | None,
  prompts: Any,
  settings: Mapping[str, Any],
) -> dict[str, int]:
  """Return `max_new_tokens` for a decoder whose files limit the length of prompt and text together.

  `max_length` limits the default number of new tokens and never raises it.

  Args:
    files: The files beside the weights.
    spec: The model.
    tokenizer: Encodes texts.
    prompts: Texts or token ids, of which the longest counts.
    settings: The other settings of the folder.
  """
  limit = files.json(GENERATION if GENERATION in files else CONFIG).get('max_length')
  if (
    spec.encoder is not None
    or not isinstance(limit, int)
    or 'max_new_tokens' in settings
    or not len(prompts)
  ):
    return {}
  length = lambda p: (
    len(p) if not isinstance(p, str) else 0 if tokenizer is None else len(tokenizer.prompt(p))
  )
  room = max(1, limit - max(map(length, prompts)))
  return {'max_new_tokens': room} if room < Options.max_new_tokens else {}


def merge_options(settings: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
  """Return `settings` replaced by explicit `options`; a setting that an option rules out is
  dropped.

  Args:
    settings: The options that a folder asks for.
    options: The options of the caller: `beams` switch sampling off; a temperature, a draft or a
      limit such as `top_p` switch the folder's beams off, and `top_p` and its kin greedy decoding.
  """
  found = {**settings, **options}
  draws = [name for name in ('top_k', 'top_p', 'min_p') if options.get(name) is not None]
  if options.get('beams', 1) > 1:
    found = {
      name: value
      for name, value in found.items()
      if name not in _SAMPLING.values() or name in options
    }
    found.setdefault('temperature', 0.0)
  elif options.get('temperature') or options.get('draft') is not None or draws:
    found['beams'] = 1
    if draws and 'temperature' not in options:
      found['temperature'] = settings.get('temperature') or 1.0
  if 'min_new_tokens' not in options and 'max_new_tokens' in options and 'min_new_tokens' in found:
    found['min_new_tokens'] = min(found['min_new_tokens'], options['max_new_tokens'])
  return found


def _fields(files: FolderFiles) -> dict[str, Any]:
  """Return the fields of config.json and, before them, generation_config.json, without nulls."""
  found: dict[str, Any] = {}
  for name in (CONFIG, GENERATION):
    fields = files.json(name)
    if isinstance(text := fields.get('text_config'), dict):  # a multimodal model
      found |= {n: v for n, v in text.items() if v is not None and n in _TOKENS}
    found |= {n: v for n, v in fields.items() if v is not None}
  return found


def _check_names(files: FolderFiles) -> None:
  """Raise a UserError for a field of generation_config.json that looks like a misspelt setting."""
  known = [
    *_TOKENS,
    *_ANY,
    *_SAMPLING,
    *_BEAMS,
    *_UNSUPPORTED,
    'do_sample',
    'max_length',
    'min_length',
  ]
  for name in files.json(GENERATION):
    near = difflib.get_close_matches(name, known, 1, 0.85)
    if name not in bookkeeping.SILENT and name not in known and near:
      where = files.folder / GENERATION
      raise errors.UserError(
        f'{where}: {name} is no setting. Expected a known field. Did you mean {near[0]}?'
      )


def _check_ids(files: FolderFiles) -> None:
  """Raise a UserError for the id of a special token that is no integer."""
  for name in (CONFIG, GENERATION):
    for field, value in files.json(name).items():
      ids = value if isinstance(value, list) else [value]
      if field in (*_TOKENS, 'decoder_start_token_id') and any(
        i is not None and type(i) is not int for i in ids
      ):
        raise errors.UserError(
          f'{files.folder / name}: {field} is {value!r}. Expected an id, or a list of ids.'
        )


def _unsupported(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
  for name, off in _UNSUPPORTED.items():
    if name in given and given[name] not in off:
      yield name, given[name]
  if words := [word for word in given.get('bad_words_ids') or [] if len(word) > 1]:
    yield 'bad_words_ids', words
