"""Every head; a new one is a new file and a new row."""

from tfm.core.registry import Table
from tfm.parts.head.average import Average
from tfm.parts.head.base import Head as Head
from tfm.parts.head.classify import Classify
from tfm.parts.head.lm import Lm

TABLE = Table('head', average=Average, classify=Classify, lm=Lm)
