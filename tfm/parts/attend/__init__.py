"""Every attention kernel. To add one, write a file and add it to `TABLE`."""

from tfm.core.registry import Table
from tfm.parts.attend.auto import Auto
from tfm.parts.attend.blockwise import Blockwise
from tfm.parts.attend.cudnn import Cudnn
from tfm.parts.attend.dense import DenseAttention
from tfm.parts.attend.pallas.flash import Pallas
from tfm.parts.attend.ring import Ring
from tfm.parts.attend.splash import Splash
from tfm.parts.attend.staircase import Staircase
from tfm.parts.attend.ulysses import Ulysses

TABLE = Table(
  'attention kernel',
  auto=Auto,
  blockwise=Blockwise,
  cudnn=Cudnn,
  dense=DenseAttention,
  pallas=Pallas,
  ring=Ring,
  splash=Splash,
  staircase=Staircase,
  ulysses=Ulysses,
)
