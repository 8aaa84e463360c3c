"""Table of rewards. To add one, add a file and a table entry."""

from tfm.core.registry import Table
from tfm.tasks.rewards.base import Reward as Reward
from tfm.tasks.rewards.function import Function
from tfm.tasks.rewards.verifiable import ExactMatch, LastNumber, Regex, Tags

TABLE = Table(
  'reward', exact_match=ExactMatch, function=Function, last_number=LastNumber, regex=Regex,
  tags=Tags,
)  # fmt: skip
