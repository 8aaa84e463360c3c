"""Table of weight initializers. To add one, add a file and a table entry."""

from tfm.core.registry import Table
from tfm.parts.init.fan_in import FanIn
from tfm.parts.init.normal import Normal
from tfm.parts.init.t5 import T5Init
from tfm.parts.init.xavier import Xavier

TABLE = Table('init', fan_in=FanIn, normal=Normal, t5=T5Init, xavier=Xavier)
