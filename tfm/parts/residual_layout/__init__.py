"""Table of residual layouts. To add one, add a file and a table entry."""

from tfm.core.registry import Table
from tfm.parts.residual_layout.adapted import Adapted
from tfm.parts.residual_layout.after import After
from tfm.parts.residual_layout.base import ResidualLayout as ResidualLayout
from tfm.parts.residual_layout.laurel import Laurel
from tfm.parts.residual_layout.normed import Normed
from tfm.parts.residual_layout.parallel import Parallel
from tfm.parts.residual_layout.post import Post
from tfm.parts.residual_layout.pre import Pre
from tfm.parts.residual_layout.sandwich import Sandwich
from tfm.parts.residual_layout.unnormalised import Unnormalised

TABLE = Table(
  'residual_layout',
  {'bare': 'unnormalised'},
  adapted=Adapted,
  after=After,
  laurel=Laurel,
  normed=Normed,
  parallel=Parallel,
  post=Post,
  pre=Pre,
  sandwich=Sandwich,
  unnormalised=Unnormalised,
)
