"""Every relative position; a new one is a new file and a new row."""

from tfm.core.registry import Table
from tfm.parts.relative.alibi import ALiBi
from tfm.parts.relative.base import Relative
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.t5 import T5Bias

TABLE = Table('relative position', alibi=ALiBi, none=Relative, rope=RoPE, t5=T5Bias)
