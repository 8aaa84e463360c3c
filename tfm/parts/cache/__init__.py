"""Every way to keep a cache; a new one is a new file and a new row."""

from tfm.core.registry import Table
from tfm.parts.cache.base import Cache as Cache
from tfm.parts.cache.dense import DenseCache

TABLE = Table('cache', dense=DenseCache)
