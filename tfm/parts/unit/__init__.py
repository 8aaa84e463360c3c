"""Every repeated unit; a new one is a new file and a new row."""

from tfm.core.registry import Table
from tfm.parts.unit.base import Unit as Unit
from tfm.parts.unit.blocks import Blocks

TABLE = Table('unit', blocks=Blocks)
