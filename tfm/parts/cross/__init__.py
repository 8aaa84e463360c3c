"""Every way to read an encoder; a new one is a new file and a new row."""

from tfm.core.registry import Table
from tfm.parts.cross.attention import CrossAttention
from tfm.parts.cross.base import Cross as Cross

TABLE = Table('cross-attention', attention=CrossAttention)
