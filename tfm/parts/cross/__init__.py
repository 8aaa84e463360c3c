"""Table of cross-attention layers. To add one, add a file and a table entry."""

from tfm.core.registry import Table
from tfm.parts.cross.attention import CrossAttention
from tfm.parts.cross.base import Cross as Cross

TABLE = Table('cross-attention', attention=CrossAttention)
