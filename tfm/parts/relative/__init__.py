"""Every relative position encoding. To add one, write a file and add it to `TABLE`."""

from tfm.core.registry import Table
from tfm.parts.relative.alibi import ALiBi
from tfm.parts.relative.axial import Axial
from tfm.parts.relative.base import Relative
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.shaw import Shaw
from tfm.parts.relative.t5 import T5Bias
from tfm.parts.relative.temperature import Temperature
from tfm.parts.relative.toeplitz import Toeplitz
from tfm.parts.relative.tupe import TUPE
from tfm.parts.relative.xl import XL

TABLE = Table(
  'relative position',
  alibi=ALiBi,
  axial=Axial,
  none=Relative,
  rope=RoPE,
  shaw=Shaw,
  t5=T5Bias,
  temperature=Temperature,
  toeplitz=Toeplitz,
  tupe=TUPE,
  xl=XL,
)
