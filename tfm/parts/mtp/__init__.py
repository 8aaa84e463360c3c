"""Table of multi-token prediction modules. To add one, add a file and a table entry."""

from tfm.core.registry import Table
from tfm.parts.mtp.base import MTP as MTP
from tfm.parts.mtp.parallel import ParallelMTP
from tfm.parts.mtp.sequential import SequentialMTP

TABLE = Table('multi-token prediction', parallel=ParallelMTP, sequential=SequentialMTP)
