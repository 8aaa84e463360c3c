"""Every change of length between segments; a new one is a new file and a new row."""

from tfm.core.registry import Table
from tfm.parts.resample.base import Resample as Resample
from tfm.parts.resample.merge import Merge
from tfm.parts.resample.stride import Stride

TABLE = Table('resampling', merge=Merge, stride=Stride)
