"""How a published folder wants its model to generate, as options of `tfm.generate`."""

import math
from pathlib import Path
from typing import Any

from tfm.hub.tokens import CONFIG, GENERATION, fields_of

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
  given: dict[str, Any] = {}
  for path in (folder / CONFIG, folder / GENERATION):
    given |= {n: v for n, v in fields_of(path).items() if v is not None} if path.is_file() else {}
  options = {ours: given[theirs] for theirs, ours in _SAME.items() if given.get(theirs) is not None}
  if isinstance(last := options.get('forced_last'), list):
    options['forced_last'] = last[0]
  if given.get('is_encoder_decoder') or given.get('decoder_start_token_id') is not None:
    options['decoder_start'] = given.get('decoder_start_token_id', given.get('bos_token_id'))
  words = [word for word in given.get('bad_words_ids') or [] if len(word) == 1]
  if forbidden := sorted({*(given.get('suppress_tokens') or []), *(word[0] for word in words)}):
    options['logit_bias'] = dict.fromkeys(forbidden, -math.inf)
  return options
