"""JSON of files that others wrote."""

import json
from typing import Any


def parse(text: str | bytes) -> Any:
  """Return the value of a JSON text.

  Raises:
    ValueError: The text is not JSON, or is nested more deeply than Python can read.
  """
  try:
    return json.loads(text)
  except RecursionError:
    raise ValueError('it is nested too deeply') from None
