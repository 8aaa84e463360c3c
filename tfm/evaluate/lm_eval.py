"""tfm as a model of the package lm-eval (EleutherAI's evaluation harness).

  python -m tfm.evaluate.lm_eval --model tfm --model_args path=runs/1 --tasks hellaswag

In Python, call `register()`, and pass `model='tfm'` to `lm_eval.simple_evaluate`.
"""

from collections.abc import Sequence
from typing import Any

from tfm.core.errors import UserError
from tfm.evaluate.outputs import batches
from tfm.generate.likelihood import Likelihood, log_likelihoods

#: The default length of sequences without a position table.
LENGTH = 2048
#: The default number of new tokens of `generate_until`.
NEW_TOKENS = 256


def register() -> type[Any]:
  """Register the model `tfm` with lm-eval, and return its class.

  Raises:
    UserError: lm-eval is not installed.
  """
  try:
    from lm_eval.api import model, registry
  except ImportError as error:
    raise UserError(
      f'lm_eval: the package {error.name} is missing. Expected pip install lm-eval.'
    ) from error
  cls = type('TfmLM', (Requests, model.LM), {'__doc__': Requests.__doc__})
  return registry.register_model('tfm')(cls)


class Requests:
  """A decoder or prefix LM that answers the requests of lm-eval.

  Args:
    path: A published folder or a workdir.
    batch_size: Sequences in each forward pass.
    length: The longest sequence. Defaults to the position table, at most 2048.
    loaded: The model, in place of `path`.
    **ignored: Arguments that the harness passes to every model, such as `device`.
  """

  def __init__(
    self,
    path: str = '',
    batch_size: int | str = 8,
    length: int | str | None = None,
    loaded: Any = None,
    **ignored: Any,
  ):
    super().__init__()  # `lm_eval.api.model.LM` has state
    del ignored
    if loaded is None:
      from tfm.hub import load

      loaded = load(path)
    if loaded.spec.encoder is not None or loaded.tokenizer is None:
      raise UserError(
        f'lm_eval: {path} has an encoder or no tokenizer. Expected a decoder with a tokenizer.'
      )
    self.loaded, self.batch_size = loaded, int(batch_size)
    self.length = int(length or min(LENGTH, loaded.spec.max_positions or LENGTH))

  @property
  def eot_token_id(self) -> int:
    """The token before texts without a context."""
    tokenizer = self.loaded.tokenizer
    token = tokenizer.eos if tokenizer.bos is None else tokenizer.bos
    return 0 if token is None else int(token)

  def loglikelihood(
    self, requests: Sequence[Any], disable_tqdm: bool = False
  ) -> list[tuple[float, bool]]:
    """Return (log p, greedy) of the continuation of each (context, continuation)."""
    del disable_tqdm
    pairs = [self._pair(*request.args) for request in requests]
    return [(found.log_prob, found.greedy) for found in self._score(pairs)]

  def loglikelihood_rolling(
    self, requests: Sequence[Any], disable_tqdm: bool = False
  ) -> list[float]:
    """Return log p of each whole text, in windows of `length` tokens that do not overlap."""
    del disable_tqdm
    windows: list[Any] = []
    texts: list[int] = []
    for number, request in enumerate(requests):
      ids = [self.eot_token_id, *self._encode(request.args[0])]
      for start in range(1, len(ids), self.length):
        # The context of a window is the token before it.
        windows.append((ids[start - 1 : start], ids[start : start + self.length]))
        texts.append(number)
    totals = [0.0] * len(requests)
    for number, likelihood in zip(texts, self._score(windows), strict=True):
      totals[number] += likelihood.log_prob
    return totals

  def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
    """Return the continuation of each context, without its first `until` text and the rest."""
    del disable_tqdm
    texts = [''] * len(requests)
    for options, group in _groups(requests):
      ids = [self._encode(requests[row].args[0]) for row in group]
      most = max(1, self.length - options['max_new_tokens'])
      ids = [(sequence or [self.eot_token_id])[-most:] for sequence in ids]
      for rows in batches([len(sequence) for sequence in ids], self.batch_size):
        written = self.loaded.generate(
          [ids[row] for row in rows], **options, eos=self.loaded.tokenizer.eos or ()
        )
        for row, tokens in zip(rows, written, strict=True):
          texts[group[row]] = _before(self.loaded.tokenizer.decode(tokens), options['stop'])
    return texts

  def _encode(self, text: str) -> list[int]:
    return [int(i) for i in self.loaded.tokenizer.encode(text)]

  def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Return the ids of a context and its continuation, in the way of lm-eval.

    Spaces at the end of a context belong to the continuation.
    """
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    if not kept:
      return [self.eot_token_id], self._encode(continuation)
    ids = self._encode(kept)
    return ids, self._encode(kept + continuation)[len(ids) :]

  def _score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Likelihood]:
    """Return the likelihood of each continuation. Long contexts lose their first tokens."""
    cut = []
    for context, continuation in pairs:
      continuation = continuation[-self.length :]
      # The last token is only a label.
      cut.append((context[-max(1, self.length + 1 - len(continuation)) :], continuation))
    m = self.loaded
    return log_likelihoods(m.spec, m.params, cut, batch=self.batch_size)


def _groups(requests: Sequence[Any]) -> list[tuple[dict[str, Any], list[int]]]:
  """Return the requests with equal options, as indices."""
  groups: list[tuple[dict[str, Any], list[int]]] = []
  for row, request in enumerate(requests):
    options = _options(request.args[1])
    same = next((rows for known, rows in groups if known == options), None)
    if same is None:
      groups.append((options, [row]))
    else:
      same.append(row)
  return groups


def _options(given: dict[str, Any]) -> dict[str, Any]:
  """Return options of `tfm.generate` for the options of a request."""
  until = given.get('until', ())
  stop = [until] if isinstance(until, str) else list(until)
  temperature = float(given.get('temperature', 0.0)) if given.get('do_sample') else 0.0
  most = int(given.get('max_gen_toks', NEW_TOKENS))
  return {'stop': [s for s in stop if s], 'temperature': temperature, 'max_new_tokens': most}


def _before(text: str, stops: Sequence[str]) -> str:
  """Return the text before the first stop."""
  ends = [at for stop in stops if (at := text.find(stop)) >= 0]
  return text[: min(ends, default=len(text))]


if __name__ == '__main__':
  register()
  from lm_eval.__main__ import cli_evaluate

  cli_evaluate()
