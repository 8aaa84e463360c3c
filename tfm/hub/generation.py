"""Options of `tfm.generate` from the generation settings of a published folder."""

from collections.abc import Iterator, Mapping, Sequence
import difflib
import math
from pathlib import Path
from typing import Any

from tfm.core import errors
from tfm.data.tokenizer import Vocabulary
from tfm.generate.options import Options, several
from tfm.generate.prompts import Prompts
from tfm.hub.files import CONFIG, GENERATION, FolderFiles
from tfm.hub.speech import decoder_prompt
from tfm.model.spec import Model
from tfm.zoo import bookkeeping

#: Fields of speech models with a decoder prompt of several tokens.
_SPEECH = ('forced_decoder_ids', 'no_timestamps_token_id', 'lang_to_id')
#: Hugging Face's field of a special token -> the field of `Options` with the same value.
_TOKENS = {
  'eos_token_id': 'eos',
  'forced_bos_token_id': 'forced_first',
  'forced_eos_token_id': 'forced_last',
}
#: The same for fields of every decoding strategy.
_ANY = {
  'repetition_penalty': 'repetition_penalty', 'no_repeat_ngram_size': 'no_repeat_ngram',
  'stop_strings': 'stop', 'max_new_tokens': 'max_new_tokens', 'min_new_tokens': 'min_new_tokens',
  'num_beams': 'beams',
}  # fmt: skip
#: The same for sampling and for beam search.
_SAMPLING = {'temperature': 'temperature', 'top_k': 'top_k', 'top_p': 'top_p', 'min_p': 'min_p'}
_BEAMS = {'length_penalty': 'length_penalty', 'early_stopping': 'early_stopping'}
#: The default top_k of transformers for sampling.
_TOP_K = 50
#: Unsupported fields that change the text -> the values that disable them.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
  'typical_p': (1, 1.0), 'epsilon_cutoff': (0, 0.0), 'eta_cutoff': (0, 0.0), 'top_h': (),
  'penalty_alpha': (0, 0.0), 'encoder_repetition_penalty': (1, 1.0),
  'encoder_no_repeat_ngram_size': (0,), 'diversity_penalty': (0, 0.0), 'num_beam_groups': (0, 1),
  'exponential_decay_length_penalty': (), 'sequence_bias': ({}, []), 'guidance_scale': (1, 1.0),
  'watermarking_config': (), 'dola_layers': (), 'token_healing': (False,),
}  # fmt: skip


def generation_options(
  path: str | Path, *, language: str | None = None, task: str | None = None
) -> dict[str, Any]:
  """Return the options of `tfm.generate` for the special tokens of a folder.

  `Loaded.settings` also returns the sampling options.

  Args:
    path: A published folder, or a checkpoint of tfm that was converted from one.
    language: The language of a multilingual speech model, such as 'en' (see `tfm.hub.speech`).
    task: The task of such a model, 'transcribe' or 'translate'.

  Returns:
    Keyword arguments of `tfm.generate`.

  Raises:
    UserError: A file is not JSON, or the language is missing, unknown or not applicable.

  Example:
    options = generation_options(folder)
    tfm.generate(m.spec, m.params, texts, tokenizer=m.tokenizer, temperature=0, **options)
  """
  return token_options(FolderFiles.read(Path(path).expanduser()), language=language, task=task)


def token_options(
  files: FolderFiles, *, language: str | None = None, task: str | None = None
) -> dict[str, Any]:
  """Return the options for special tokens from the files of a folder.

  Fields of `generation_config.json` override fields of `config.json`.

  Args:
    files: The files of the folder.
    language: See `generation_options`.
    task: See `generation_options`.

  Returns:
    Keyword arguments of `tfm.generate`.

  Raises:
    UserError: See `generation_options`.
  """
  config = _fields(files)
  _check_ids(files)
  options = {name: config[field] for field, name in _TOKENS.items() if field in config}
  if isinstance(last := options.get('forced_last'), list):
    options['forced_last'] = last[0]
  if config.get('is_encoder_decoder') or config.get('decoder_start_token_id') is not None:
    options['decoder_start'] = config.get('decoder_start_token_id', config.get('bos_token_id'))
  if language or task or any(config.get(name) is not None for name in _SPEECH):
    options['decoder_start'] = decoder_prompt(config, language, task)
  if first := config.get('begin_suppress_tokens'):
    options['forbidden_first'] = sorted(first)
  words = [word for word in config.get('bad_words_ids') or [] if len(word) == 1]
  if forbidden := sorted({*(config.get('suppress_tokens') or []), *(word[0] for word in words)}):
    options['logit_bias'] = dict.fromkeys(forbidden, -math.inf)
  return options


def decoding_options(files: FolderFiles, ignore: Sequence[str] = ()) -> dict[str, Any]:
  """Return the options for sampling, beam search and lengths, with the rules of transformers.

  Without `do_sample: true`, decoding is greedy or a beam search. The default top_k of sampling is
  50. `max_length` is handled by `generation_settings` and `length_limit`.

  Args:
    files: The files of the folder. `config.json` is read if `generation_config.json` is missing.
    ignore: Names of unsupported settings to ignore.

  Returns:
    Keyword arguments of `tfm.generate`.

  Raises:
    UserError: The files have a setting that tfm does not support.
  """
  where = GENERATION if GENERATION in files else CONFIG
  if where == GENERATION:
    _check_names(files)
  config = {name: value for name, value in files.json(where).items() if value is not None}
  if wrong := [f'{name}={value!r}' for name, value in _unsupported(config) if name not in ignore]:
    names = ', '.join(repr(name.partition('=')[0]) for name in wrong)
    raise errors.UserError(
      f'{where}: {", ".join(wrong)}: not supported by tfm, and changes the text. Expected '
      f'ignore=({names},) to generate without it, or explicit options of tfm.generate(m.spec, '
      'm.params, ...).'
    )
  options = {name: config[field] for field, name in _ANY.items() if config.get(field)}
  if options.get('beams', 1) > 1:
    options |= {name: config[field] for field, name in _BEAMS.items() if field in config}
  if not config.get('do_sample'):
    return options | {'temperature': 0.0}
  if options.get('beams', 1) > 1:
    if 'do_sample' not in ignore:
      raise errors.UserError(
        f'{where}: do_sample=True with num_beams={options["beams"]}: tfm does not sample beams. '
        "Expected ignore=('do_sample',) for beam search without sampling, or beams=1."
      )
    return options | {'temperature': 0.0}
  sampling: dict[str, Any] = {'top_k': _TOP_K}
  sampling |= {name: config[field] for field, name in _SAMPLING.items() if field in config}
  if not sampling['top_k']:
    del sampling['top_k']
  return options | sampling


def generation_settings(
  files: FolderFiles,
  spec: Model,
  tokenizer: Vocabulary | None,
  *,
  language: str | None = None,
  task: str | None = None,
  ignore: Sequence[str] = (),
) -> dict[str, Any]:
  """Return all options of `tfm.generate` that the files of a folder set.

  Without config files, as for models that tfm trained, there are no sampling options.

  Args:
    files: The files of the folder.
    spec: The model. In encoder-decoder models, `max_length` and `min_length` count decoder tokens.
    tokenizer: The tokenizer. Its padding token starts a decoder if the files set no start token.
    language: See `generation_options`.
    task: See `generation_options`.
    ignore: See `decoding_options`.

  Returns:
    Keyword arguments of `tfm.generate`.

  Raises:
    UserError: See `generation_options` and `decoding_options`.
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
  for field, name in (('max_length', 'max_new_tokens'), ('min_length', 'min_new_tokens')):
    if lengths.get(field) and name not in options and lengths[field] > start:
      options[name] = lengths[field] - start
  return options


def length_limit(
  files: FolderFiles,
  spec: Model,
  tokenizer: Vocabulary | None,
  prompts: Prompts,
  settings: Mapping[str, Any],
) -> dict[str, int]:
  """Return `max_new_tokens` for a decoder with a `max_length` that includes the prompt.

  `max_length` can lower the default number of new tokens, but does not raise it.

  Args:
    files: The files of the folder.
    spec: The model.
    tokenizer: The tokenizer, for text prompts.
    prompts: Texts or token ids. The longest prompt counts.
    settings: The other options from the folder.

  Returns:
    The option `max_new_tokens`, or no option if there is no limit below the default.
  """
  limit = files.json(GENERATION if GENERATION in files else CONFIG).get('max_length')
  if spec.encoder is not None or not isinstance(limit, int):
    return {}
  if 'max_new_tokens' in settings or not len(prompts):
    return {}
  room = max(1, limit - max(_prompt_length(prompt, tokenizer) for prompt in prompts))
  return {'max_new_tokens': room} if room < Options.max_new_tokens else {}


def _prompt_length(prompt: Any, tokenizer: Vocabulary | None) -> int:
  if not isinstance(prompt, str):
    return len(prompt)
  return 0 if tokenizer is None else len(tokenizer.prompt(prompt))


def merge_options(settings: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
  """Return the options of a folder, overridden by the options of the caller.

  Settings that conflict with an option are dropped. `beams` disables sampling. A temperature, a
  draft model or `top_k`, `top_p` or `min_p` disables the folder's beam search. The last three also
  disable its greedy decoding.

  Args:
    settings: The options from the folder.
    options: The options of the caller.
  """
  found = {**settings, **options}
  truncation = [name for name in ('top_k', 'top_p', 'min_p') if options.get(name) is not None]
  if options.get('beams', 1) > 1:
    for name in _SAMPLING.values():
      if name not in options:
        found.pop(name, None)
    found.setdefault('temperature', 0.0)
  elif options.get('temperature') or options.get('draft') is not None or truncation:
    found['beams'] = 1
    if truncation and 'temperature' not in options:
      found['temperature'] = settings.get('temperature') or 1.0
  if 'min_new_tokens' not in options and 'max_new_tokens' in options and 'min_new_tokens' in found:
    found['min_new_tokens'] = min(found['min_new_tokens'], options['max_new_tokens'])
  return found


def _fields(files: FolderFiles) -> dict[str, Any]:
  """Return the fields of config.json, overridden by generation_config.json, without nulls."""
  found: dict[str, Any] = {}
  for name in (CONFIG, GENERATION):
    fields = files.json(name)
    if isinstance(text := fields.get('text_config'), dict):  # a multimodal model
      found |= {n: v for n, v in text.items() if v is not None and n in _TOKENS}
    found |= {n: v for n, v in fields.items() if v is not None}
  return found


def _check_names(files: FolderFiles) -> None:
  """Raise a UserError for a field of generation_config.json that looks like a misspelt setting."""
  known = [*_TOKENS, *_ANY, *_SAMPLING, *_BEAMS, *_UNSUPPORTED]
  known += ['do_sample', 'max_length', 'min_length']
  for name in files.json(GENERATION):
    near = difflib.get_close_matches(name, known, 1, 0.85)
    if name not in bookkeeping.SILENT and name not in known and near:
      where = files.folder / GENERATION
      raise errors.UserError(
        f'{where}: unknown setting {name}. Expected a known field. Did you mean {near[0]}?'
      )


def _check_ids(files: FolderFiles) -> None:
  """Raise a UserError for a special token id that is not an integer."""
  for name in (CONFIG, GENERATION):
    for field, value in files.json(name).items():
      if field not in (*_TOKENS, 'decoder_start_token_id'):
        continue
      ids = value if isinstance(value, list) else [value]
      if any(i is not None and type(i) is not int for i in ids):
        raise errors.UserError(
          f'{files.folder / name}: {field} is {value!r}. Expected a token id or a list of ids.'
        )


def _unsupported(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
  for name, off in _UNSUPPORTED.items():
    if name in config and config[name] not in off:
      yield name, config[name]
  if words := [word for word in config.get('bad_words_ids') or [] if len(word) > 1]:
    yield 'bad_words_ids', words
