"""How a published folder wants its model to generate, as options of `tfm.generate`."""

import json
import math
from pathlib import Path
from typing import Any

from tfm.core import errors

#: Theirs -> ours, where the value is the same.
_SAME = {'eos_token_id': 'eos', 'forced_bos_token_id': 'forced_first', 'forced_eos_token_id': 'forced_last'}


def generation_options(path: str | Path) -> dict[str, Any]:
  """What `generation_config.json`, or else `config.json`, says of the tokens at either end and of forbidden ones.

  How tokens are drawn, how many, and words of several tokens that are not to be said are left to the caller.

  Raises: UserError for files that are no JSON.

  Example:
    tfm.generate(m.spec, m.params, texts, tokenizer=m.tokenizer, temperature=0, **generation_options(folder))
  """
  folder = Path(path).expanduser()
  given = {**_fields(folder / 'config.json'), **_fields(folder / 'generation_config.json')}
  options = {ours: given[theirs] for theirs, ours in _SAME.items() if given.get(theirs) is not None}
  if isinstance(last := options.get('forced_last'), list):
    options['forced_last'] = last[0]
  if given.get('is_encoder_decoder') or given.get('decoder_start_token_id') is not None:
    options['decoder_start'] = given.get('decoder_start_token_id', given.get('bos_token_id'))
  words = [word for word in given.get('bad_words_ids') or [] if len(word) == 1]
  if forbidden := sorted({*(given.get('suppress_tokens') or []), *(word[0] for word in words)}):
    options['logit_bias'] = dict.fromkeys(forbidden, -math.inf)
  return options


def _fields(path: Path) -> dict[str, Any]:
  if not path.is_file():
    return {}
  try:
    return {name: value for name, value in json.loads(path.read_text('utf-8')).items() if value is not None}
  except (ValueError, AttributeError) as error:
    raise errors.UserError(f'{path}: is no config: {error}.') from error
