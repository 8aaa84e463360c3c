"""Every wiring; a new one is a new file and a new row."""

from tfm.core.registry import Table
from tfm.parts.wiring.adapted import Adapted
from tfm.parts.wiring.after import After
from tfm.parts.wiring.bare import Bare
from tfm.parts.wiring.base import Wiring as Wiring
from tfm.parts.wiring.parallel import Parallel
from tfm.parts.wiring.post import Post
from tfm.parts.wiring.pre import Pre
from tfm.parts.wiring.sandwich import Sandwich

TABLE = Table(
  'wiring', adapted=Adapted, after=After, bare=Bare, parallel=Parallel, post=Post, pre=Pre, sandwich=Sandwich
)
