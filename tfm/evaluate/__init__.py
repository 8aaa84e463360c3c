"""Evaluation of generated texts and of choices, with 95% intervals.

`evaluate_outputs` compares the outputs of a model with references, `evaluate_choices` ranks the
choices of questions, and `tfm.evaluate.lm_eval` runs the tasks of the package lm-eval.
"""

from tfm.evaluate.bootstrap import Score, interval, measure, score
from tfm.evaluate.choices import FewShot, Question, evaluate_choices, evaluate_votes
from tfm.evaluate.losses import evaluate_losses
from tfm.evaluate.metrics import TABLE, Measured
from tfm.evaluate.outputs import Example, Outputs, evaluate_outputs

__all__ = [
  'TABLE', 'Example', 'FewShot', 'Measured', 'Outputs', 'Question', 'Score', 'evaluate_choices',
  'evaluate_losses', 'evaluate_outputs', 'evaluate_votes', 'interval', 'measure', 'score',
]  # fmt: skip
