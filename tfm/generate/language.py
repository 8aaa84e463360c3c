"""The language of a recording, by the first token of a multilingual speech model."""

from collections.abc import Mapping
from typing import Any

from tfm.generate.decode import generate
from tfm.model.spec import Model


def detect_language(
  spec: Model, params: Any, prompts: Any, languages: Mapping[str, int], start: int, **options: Any
) -> list[str]:
  """Return the most probable language of each recording.

  Args:
    spec, params: a multilingual model.
    prompts: inputs of its encoder, as for `tfm.generate`.
    languages: token ids by language (`tfm.hub.languages`).
    start: the id that the decoder begins with.
    **options: of `tfm.generate`, such as `run`.
  """
  names = {token: name for name, token in languages.items()}
  settings = options | {'temperature': 0, 'max_new_tokens': 1, 'allowed': sorted(names), 'eos': ()}
  return [names[row[0]] for row in generate(spec, params, prompts, decoder_start=start, **settings)]
