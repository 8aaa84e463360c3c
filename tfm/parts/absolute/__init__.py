"""Table of absolute position encodings. To add one, add a file and a table entry."""

from tfm.core.registry import Table
from tfm.parts.absolute.base import Absolute
from tfm.parts.absolute.learned import Learned
from tfm.parts.absolute.lspe import LSPE
from tfm.parts.absolute.sinusoidal import Sinusoidal

TABLE = Table('absolute position', learned=Learned, lspe=LSPE, none=Absolute, sinusoidal=Sinusoidal)
