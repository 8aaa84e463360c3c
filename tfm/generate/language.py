"""Language identification of recordings, by the first token of a multilingual speech model."""

from collections.abc import Mapping
from typing import Any

from tfm.generate.decode import generate
from tfm.generate.prompts import Prompts
from tfm.model.spec import Model
from tfm.model.stack import Params


def detect_language(
  spec: Model,
  params: Params,
  prompts: Prompts,
  languages: Mapping[str, int],
  start: int,
  **options: Any,
) -> list[str]:
  """Return the most probable language of each recording.

  Args:
    spec: A multilingual speech model.
    params: Its parameters.
    prompts: Inputs of its encoder, as for `tfm.generate`.
    languages: Token ids by language (`tfm.hub.languages`).
    start: The id with which the decoder starts.
    **options: Options of `tfm.generate`, such as `run`.

  Returns:
    A key of `languages` for each recording.
  """
  names = {token: name for name, token in languages.items()}
  settings = options | {'temperature': 0, 'max_new_tokens': 1, 'allowed': sorted(names), 'eos': ()}
  tokens = generate(spec, params, prompts, decoder_start=start, **settings)
  return [names[ids[0]] for ids in tokens]
