"""Table of resampling layers. To add one, add a file and a table entry."""

from tfm.core.registry import Table
from tfm.parts.resample.base import Resample as Resample
from tfm.parts.resample.merge import Merge
from tfm.parts.resample.stride import Stride

TABLE = Table('resampling', merge=Merge, stride=Stride)
