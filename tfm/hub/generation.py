"""How a published folder wants its model to generate, as options of `tfm.generate`."""

import math
from pathlib import Path
from typing import Any

from tfm.hub.speech import decoder_prompt
from tfm.hub.tokens import CONFIG, GENERATION, KEPT, fields_of, read_tokens

#: Fields of models whose decoder begins with several tokens.
_SPEECH = ('forced_decoder_ids', 'no_timestamps_token_id', 'lang_to_id')
#: Hugging Face's name -> that of `Options`, where the value is the same.
_SAME = {'eos_token_id': 'eos', 'forced_bos_token_id': 'forced_first', 'forced_eos_token_id': 'forced_last'}


def generation_options(path: str | Path, *, language: str | None = None, task: str | None = None) -> dict[str, Any]:
  """Return the options of `tfm.generate` for special tokens that a folder's files name.

  How tokens are drawn, how many, and forbidden words of several tokens are left to the caller.

  Args:
    path: a published folder, or a checkpoint that was converted from one. `generation_config.json` goes before
      `config.json`.
    language, task: of a multilingual speech model, such as 'en' and 'translate' (see `tfm.hub.speech`).

  Raises:
    UserError: a file is no JSON; a language is needed, unknown, or given to another model.

  Example:
    tfm.generate(m.spec, m.params, texts, tokenizer=m.tokenizer, temperature=0, **generation_options(folder))
  """
  folder = Path(path).expanduser()
  given: dict[str, Any] = {}
  for fields in _files(folder):
    given |= {n: v for n, v in fields.items() if v is not None}
  options = {ours: given[theirs] for theirs, ours in _SAME.items() if given.get(theirs) is not None}
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


def _files(folder: Path) -> list[dict[str, Any]]:
  """Return the fields of config.json and generation_config.json, or what a checkpoint kept of them."""
  if (folder / 'about' / KEPT).is_file():
    kept = read_tokens(folder)
    return [kept[name] for name in (CONFIG, GENERATION) if name in kept]
  return [fields_of(folder / name) for name in (CONFIG, GENERATION) if (folder / name).is_file()]
