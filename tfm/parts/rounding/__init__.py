"""Table of roundings of projections. To add one, add a file and a table entry."""

from tfm.core.registry import Table
from tfm.parts.rounding.base import Rounding as Rounding
from tfm.parts.rounding.ternary import Ternary

TABLE = Table('rounding', none=Rounding, ternary=Ternary)
"""Roundings of projections, by name."""
