"""What a model is trained to do with text: every task."""

from tfm.core.registry import Table
from tfm.tasks.base import Features, Task, mean
from tfm.tasks.causal_lm import CausalLM

__all__ = ['TABLE', 'CausalLM', 'Features', 'Task', 'mean']

TABLE = Table('task', causal_lm=CausalLM)
