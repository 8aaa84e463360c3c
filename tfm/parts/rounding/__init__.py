"""Every rounding of projections; a new one is a new file and a new row."""

from tfm.core.registry import Table
from tfm.parts.rounding.base import Rounding as Rounding
from tfm.parts.rounding.ternary import Ternary

TABLE = Table('rounding', none=Rounding, ternary=Ternary)
