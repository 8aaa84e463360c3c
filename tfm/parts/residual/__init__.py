"""Table of residual connections between blocks. To add one, add a file and a table entry."""

from tfm.core.registry import Table
from tfm.parts.residual.altup import AltUp
from tfm.parts.residual.base import Residual
from tfm.parts.residual.dlcl import Dlcl
from tfm.parts.residual.dwa import Dwa
from tfm.parts.residual.reversible import Reversible

TABLE = Table('residual', altup=AltUp, dlcl=Dlcl, dwa=Dwa, plain=Residual, reversible=Reversible)
"""Residual connections between blocks, by name."""
