"""Questions with choices: the most probable choice, or the majority answer of samples."""

from collections.abc import Sequence
import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfm.core.errors import UserError
from tfm.data import stateless_rng
from tfm.evaluate.bootstrap import Score, measure
from tfm.evaluate.metrics import mean
from tfm.generate import voting
from tfm.generate.likelihood import rank
from tfm.generate.prompts import decoding_problems

#: The form of questions, and of prompts that a choice continues directly.
FORMS = {'question': 'Q: {}\nA: {}', 'prompt': '{}{}'}


class Question(NamedTuple):
  """A question, its choices, and the right answer.

  Attributes:
    text: The question, or a prompt that the choices continue.
    choices: The choices. Empty for questions that samples answer.
    answer: The text of the right answer.
    form: The text of an example, with `{}` for the question and for the answer.
  """

  text: str
  choices: tuple[str, ...]
  answer: str
  form: str


@dataclasses.dataclass(frozen=True)
class FewShot:
  """The worked examples before each question.

  Attributes:
    shots: The number of examples. They are drawn for each question by seed and number.
    pool: Questions to draw from. Empty draws from the other evaluated questions.
    form: The text of an example. Empty takes the form of each question.
    seed: The seed of the draw.
  """

  shots: int = 0
  pool: tuple[Question, ...] = ()
  form: str = ''
  seed: int = 0

  def prompt(self, questions: Sequence[Question], i: int) -> tuple[str, str]:
    """Return the prompt of question `i`, and the text between the prompt and an answer."""
    pool, form = self.pool or questions, self.form or questions[i].form
    order = list(range(len(pool)))
    if self.shots:
      keys = stateless_rng.mix(self.seed, stateless_rng.word('shots'), i, np.arange(len(pool)))
      order = [j for j in np.argsort(keys).tolist() if self.pool or j != i]
    if len(order) < self.shots:
      raise UserError(
        f'--shots: is {self.shots}, but there are {len(order)} other questions. Expected fewer.'
      )
    examples = [(pool[j].text, pool[j].answer) for j in order[: self.shots]]
    prompt = voting.few_shot(examples, questions[i].text, form=form)
    # `few_shot` removes spaces at the end of a prompt. They belong to the answer.
    end = questions[i].text + form.split('{}')[1]
    space = end[len(end.rstrip(' ')) :]
    return prompt, space


def read(path: str | Path) -> list[Question]:
  """Return the questions of JSON lines: `question` or `prompt`, `choices` and `answer`.

  `answer` is the index of a choice, its text, or any text if there are no choices.

  Raises:
    UserError: A line has another form.
  """
  questions = []
  for number, line in enumerate(Path(path).expanduser().read_text('utf-8').splitlines(), 1):
    if line.strip():
      questions.append(_question(line, f'{path} line {number}'))
  if not questions:
    raise UserError(f'{path}: has no questions. Expected JSON lines.')
  return questions


def evaluate_choices(
  loaded: Any,
  questions: Sequence[Question],
  few_shot: FewShot = FewShot(),
  normalise: str = 'none',
  *,
  batch: int = 16,
) -> dict[str, Score]:
  """Return the accuracy of the most probable choices.

  Args:
    loaded: The model, from `tfm.load`.
    questions: Questions with choices.
    few_shot: The worked examples before each question.
    normalise: See `tfm.generate.rank`.
    batch: Sequences in each forward pass.

  Returns:
    `accuracy` in percent.

  Raises:
    UserError: A question has no choices, or as `tfm.generate.rank`.
  """
  if missing := next((q for q in questions if not q.choices), None):
    raise UserError(
      f'--choices: {missing.text!r:.60} has no choices. Expected choices, or --vote=N.'
    )
  prompts, choices = [], []
  for i, question in enumerate(questions):
    prompt, space = few_shot.prompt(questions, i)
    prompts.append(prompt)
    choices.append([space + choice for choice in question.choices])
  start = loaded.settings().get('decoder_start')
  ranked = rank(
    loaded.spec, loaded.params, prompts, choices, loaded.tokenizer, normalise, batch=batch,
    decoder_start=start,
  )  # fmt: skip
  right = [q.choices[r.best] == q.answer for q, r in zip(questions, ranked, strict=True)]
  return {'accuracy': measure(mean(right), few_shot.seed)}


def evaluate_votes(
  loaded: Any,
  questions: Sequence[Question],
  n: int,
  few_shot: FewShot = FewShot(),
  *,
  marker: str = '',
  batch: int = 16,
  **options: Any,
) -> dict[str, Score]:
  """Return the accuracy of the majority answer of n samples (arXiv:2203.11171).

  Args:
    loaded: The model.
    questions: Questions with or without choices, which are not shown to the model.
    n: Samples per question.
    few_shot: The worked examples before each question.
    marker: The text before an answer. Empty takes the first line.
    batch: Questions whose samples are drawn together.
    **options: Options of `tfm.generate`.

  Returns:
    `accuracy` in percent. A question without an answer is wrong.
  """
  for why in decoding_problems(loaded.spec):
    raise UserError(f'--vote: {why}')
  parse = voting.answer_after(marker) if marker else _first_line
  prompts = [few_shot.prompt(questions, i)[0] for i in range(len(questions))]
  answers: list[str | None] = []
  model = loaded.prepared()
  for start in range(0, len(prompts), batch):
    part = prompts[start : start + batch]
    given = loaded.options(part, options)
    answers += voting.vote(
      model.spec, model.params, part, n=n, parse=parse, tokenizer=model.tokenizer, **given
    )
  right = [a == q.answer.strip() for q, a in zip(questions, answers, strict=True)]
  return {'accuracy': measure(mean(right), few_shot.seed)}


def _first_line(text: str) -> str | None:
  line = text.strip().partition('\n')[0].strip()
  return line or None


def _question(line: str, where: str) -> Question:
  try:
    record = json.loads(line)
  except ValueError as error:
    raise UserError(f'{where} is not JSON ({error}). Expected an object.') from None
  if not isinstance(record, dict):
    raise UserError(f'{where} is {line:.60}. Expected a JSON object.')
  kind = next((name for name in FORMS if isinstance(record.get(name), str)), None)
  if kind is None:
    raise UserError(f'{where} has {", ".join(record)}. Expected the text question or prompt.')
  choices, answer = record.get('choices', []), record.get('answer')
  if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
    raise UserError(f'{where}: choices is {choices!r:.60}. Expected a list of texts.')
  if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
    answer = choices[answer]
  if not isinstance(answer, str) or (choices and answer not in choices):
    raise UserError(f'{where}: answer is {answer!r:.60}. Expected the index or text of a choice.')
  return Question(record[kind], tuple(choices), answer, FORMS[kind])
