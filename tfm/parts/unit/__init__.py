"""Table of repeated units. To add one, add a file and a table entry."""

from tfm.core.registry import Table
from tfm.parts.unit.base import Unit as Unit
from tfm.parts.unit.blocks import Blocks

TABLE = Table('unit', blocks=Blocks)
