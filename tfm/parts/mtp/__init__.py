"""Every way to predict tokens after the next one; a new one is a new file and a new row."""

from tfm.core.registry import Table
from tfm.parts.mtp.base import MTP as MTP
from tfm.parts.mtp.parallel import ParallelMTP
from tfm.parts.mtp.sequential import SequentialMTP

TABLE = Table('multi-token prediction', parallel=ParallelMTP, sequential=SequentialMTP)
