"""Prompts with worked examples, and the answer that most of several samples agree on
(arXiv:2203.11171).
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

from tfm.core import errors
from tfm.generate.decode import generate
from tfm.generate.prompts import Tokenizer
from tfm.model.spec import Model

T = TypeVar('T', bound=Hashable)


def few_shot(
  examples: Iterable[tuple[str, str]],
  question: str,
  *,
  form: str = 'Q: {}\nA: {}',
  between: str = '\n\n',
) -> str:
  """The examples in `form`, then the question in it up to where its answer goes.

  *Raises*: UserError for a form without a place for each.

  Example:
    >>> few_shot([('1+1', '2'), ('2+3', '5')], '4+4', form='{}={}', between=' ')
    '1+1=2 2+3=5 4+4='
  """
  parts = form.split('{}')
  if len(parts) != 3:
    places = f'{len(parts) - 1} {{}}'
    raise errors.UserError(
      f'few_shot: form={form!r} has {places}. Expected one for the question, one for the answer.'
    )
  filled = [f'{parts[0]}{asked}{parts[1]}{answer}{parts[2]}' for asked, answer in examples]
  return between.join([*filled, f'{parts[0]}{question}{parts[1]}'.rstrip(' ')])


def after(marker: str) -> Callable[[str], str | None]:
  r"""A parser: the line after the last `marker` of a text, without outer spaces and a full stop;
  None without one.

  Example:
    >>> after('Answer:')('3 + 4 is 7.\nAnswer: 7.\n')
    '7'
  """

  def parse(text: str) -> str | None:
    _, found, rest = text.rpartition(marker)
    line = rest.strip().partition('\n')[0].strip().removesuffix('.')
    return line if found and line else None

  return parse


def majority(answers: Iterable[T | None]) -> T | None:
  """The most frequent answer, of equals the first; None is no vote, and the answer if there is no
  vote.
  """
  # A Counter keeps the order in which it met its keys, and so do the most common of a number.
  counted = Counter(answer for answer in answers if answer is not None).most_common(1)
  return counted[0][0] if counted else None


def vote(
  spec: Model,
  params: Any,
  prompts: Sequence[str],
  *,
  n: int,
  parse: Callable[[str], T | None],
  tokenizer: Tokenizer,
  **options: Any,
) -> list[T | None]:
  """For each prompt the `majority` of what `parse` finds in n samples of its continuation.

  `options` are those of `generate`; all samples are drawn in one batch.

  *Raises*: UserError as `generate`, and for samples that would all be the same.
  """
  if n < 1:
    raise errors.UserError(f'vote: n={n} is no number of samples. Expected at least 1.')
  if n > 1 and options.get('temperature') == 0:
    raise errors.UserError(
      f'vote: n={n} samples at temperature=0 are all the same. Expected more, or n=1.'
    )
  texts = generate(
    spec, params, [p for p in prompts for _ in range(n)], tokenizer=tokenizer, **options
  )
  return [majority(map(parse, texts[i : i + n])) for i in range(0, len(texts), n)]
