"""Every RoPE scaling. To add one, write a file and add it to `TABLE`."""

from tfm.core.registry import Table
from tfm.parts.relative.scaling.base import Scaling
from tfm.parts.relative.scaling.dynamic import Dynamic
from tfm.parts.relative.scaling.linear import Linear
from tfm.parts.relative.scaling.llama3 import Llama3
from tfm.parts.relative.scaling.longrope import LongRoPE
from tfm.parts.relative.scaling.yarn import Yarn

TABLE = Table(
  'RoPE scaling',
  dynamic=Dynamic,
  linear=Linear,
  llama3=Llama3,
  longrope=LongRoPE,
  none=Scaling,
  yarn=Yarn,
)
