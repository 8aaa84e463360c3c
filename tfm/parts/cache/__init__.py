"""Every cache layout. To add one, write a file and add it to `TABLE`."""

from tfm.core.registry import Table
from tfm.parts.cache.base import Cache as Cache
from tfm.parts.cache.dense import DenseCache
from tfm.parts.cache.int8 import Int8Cache
from tfm.parts.cache.paged import PagedCache
from tfm.parts.cache.ring import RingCache

TABLE = Table('cache', dense=DenseCache, int8=Int8Cache, paged=PagedCache, ring=RingCache)
