"""Types of the arguments of `generate`."""

from typing import Any

from tfm.core import errors
from tfm.generate.drafts import Draft
from tfm.model import check_call
from tfm.parts.context import Run


def check_arguments(spec: Any, tokenizer: Any, key: Any, run: Any, draft: Any) -> None:
  """Check the arguments of `generate` other than parameters, prompts and options.

  Args:
    spec: Expected a model.
    tokenizer: Expected an object that decodes (and encodes text prompts), or None.
    key: Expected a random key, an array of keys, or None.
    run: Expected a `Run`.
    draft: Expected a draft, or None.

  Raises:
    UserError: for an argument of a wrong type.
  """
  check_call.check_spec('generate', spec)
  problem = ''
  if tokenizer is not None and not hasattr(tokenizer, 'decode'):
    problem = f'tokenizer is of type {type(tokenizer).__name__}. Expected m.tokenizer, or None'
  elif key is not None and not (check_call.is_key(key) or check_call.is_key(key, ndim=1)):
    problem = f'key is not a random key ({key!r:.60}). Expected jax.random.key(seed), or None'
  elif not isinstance(run, Run):
    problem = f'run is of type {type(run).__name__}. Expected a tfm.Run'
  elif draft is not None and not isinstance(draft, Draft):
    problem = f'draft is of type {type(draft).__name__}. Expected a draft such as LookupDraft()'
  if problem:
    raise errors.UserError(f'generate: {problem}.')
