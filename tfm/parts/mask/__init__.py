"""Every mask; a new one is a new file and a new row."""

from tfm.core.registry import Table
from tfm.parts.mask.base import Both, Mask
from tfm.parts.mask.causal import Causal
from tfm.parts.mask.prefix import Prefix
from tfm.parts.mask.segments import Segments
from tfm.parts.mask.window import Window

TABLE = Table('mask', both=Both, causal=Causal, full=Mask, prefix=Prefix, segments=Segments, window=Window)
