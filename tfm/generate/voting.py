"""Few-shot prompts, and self-consistency: the majority answer of several samples."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

from tfm.core import errors
from tfm.generate.decode import generate
from tfm.generate.prompts import Tokenizer
from tfm.model.spec import Model
from tfm.model.stack import Params

T = TypeVar('T', bound=Hashable)


def few_shot(
  examples: Iterable[tuple[str, str]],
  question: str,
  *,
  form: str = 'Q: {}\nA: {}',
  between: str = '\n\n',
) -> str:
  """Return a prompt of worked examples and a question (arXiv:2005.14165).

  Args:
    examples: Pairs of question and answer.
    question: The question to answer.
    form: The text of an example, with `{}` for the question and for the answer.
    between: The text between examples.

  Returns:
    The examples, then the question up to its answer.

  Raises:
    UserError: for a form without exactly two `{}`.

  Example:
    >>> import tfm
    >>> tfm.generate.few_shot([('1+1', '2'), ('2+3', '5')], '4+4', form='{}={}', between=' ')
    '1+1=2 2+3=5 4+4='
  """
  parts = form.split('{}')
  if len(parts) != 3:
    raise errors.UserError(
      f'few_shot: form={form!r} has {len(parts) - 1} {{}}. '
      'Expected one for the question and one for the answer.'
    )
  shots = [f'{parts[0]}{asked}{parts[1]}{answer}{parts[2]}' for asked, answer in examples]
  return between.join([*shots, f'{parts[0]}{question}{parts[1]}'.rstrip(' ')])


def answer_after(marker: str) -> Callable[[str], str | None]:
  r"""Return a parser for the rest of the line after the last `marker`.

  It returns None without a marker. Outer spaces and a final full stop are removed.

  Example:
    >>> import tfm
    >>> tfm.generate.answer_after('Answer:')('3 + 4 is 7.\nAnswer: 7.\n')
    '7'
  """

  def parse(text: str) -> str | None:
    _, found, rest = text.rpartition(marker)
    line = rest.strip().partition('\n')[0].strip().removesuffix('.')
    return line if found and line else None

  return parse


def majority(answers: Iterable[T | None]) -> T | None:
  """Return the most frequent answer, and the earliest of several such answers.

  None does not count. Returns None if there is no answer.

  Example:
    >>> import tfm
    >>> tfm.generate.majority(['7', None, '8', '8'])
    '8'
  """
  # Counter.most_common keeps the order of first occurrence among equal counts.
  counted = Counter(answer for answer in answers if answer is not None).most_common(1)
  return counted[0][0] if counted else None


def vote(
  spec: Model,
  params: Params,
  prompts: Sequence[str],
  *,
  n: int,
  parse: Callable[[str], T | None],
  tokenizer: Tokenizer,
  **options: Any,
) -> list[T | None]:
  """Return the majority answer of n samples for each prompt: self-consistency (arXiv:2203.11171).

  Args:
    spec: The model.
    params: Its parameters.
    prompts: Texts.
    n: Samples per prompt. All samples are drawn in one batch.
    parse: Extracts the answer from the text of a sample, None if there is no answer.
    tokenizer: Encodes prompts and decodes samples.
    **options: Options of `tfm.generate`.

  Returns:
    An answer per prompt, None if no sample has one.

  Raises:
    UserError: as `tfm.generate`, and for several samples at temperature=0.

  Example:
    >>> import jax, tfm
    >>> from tfm.data.tokenizer.byte import ByteVocabulary
    >>> from tfm.parts.embed.tokens import Tokens
    >>> spec = tfm.Model(Tokens(256), d_model=64)
    >>> params = tfm.init(spec, jax.random.key(0))
    >>> prompt = tfm.generate.few_shot([('1+1', '2')], '3+4', form='{}={}', between=' ')
    >>> answers = tfm.generate.vote(
    ...   spec, params, [prompt], n=3, parse=str.strip, tokenizer=ByteVocabulary(), max_new_tokens=2
    ... )
    >>> len(answers)
    1
  """
  if n < 1:
    raise errors.UserError(f'vote: n={n} is too small. Expected at least 1 sample.')
  if n > 1 and options.get('temperature') == 0:
    raise errors.UserError(
      f'vote: all n={n} samples are equal at temperature=0. Expected temperature > 0, or n=1.'
    )
  repeated = [prompt for prompt in prompts for _ in range(n)]
  texts = generate(spec, params, repeated, tokenizer=tokenizer, **options)
  return [majority(map(parse, texts[i : i + n])) for i in range(0, len(texts), n)]
