"""Every residual; a new one is a new file and a new row."""

from tfm.core.registry import Table
from tfm.parts.residual.altup import AltUp
from tfm.parts.residual.base import Residual
from tfm.parts.residual.dlcl import Dlcl
from tfm.parts.residual.dwa import Dwa
from tfm.parts.residual.reversible import Reversible

TABLE = Table('residual', altup=AltUp, dlcl=Dlcl, dwa=Dwa, plain=Residual, reversible=Reversible)
"""What travels from block to block: the stream, and what is carried beside it."""
