"""Learning rate schedules. A new one is a new file and a row here."""

from tfm.core.registry import Table
from tfm.optim.schedule.base import Schedule
from tfm.optim.schedule.constant import Constant
from tfm.optim.schedule.cosine import Cosine
from tfm.optim.schedule.linear import Linear
from tfm.optim.schedule.rsqrt import Rsqrt
from tfm.optim.schedule.wsd import WSD

TABLE = Table('schedule', constant=Constant, cosine=Cosine, linear=Linear, rsqrt=Rsqrt, wsd=WSD)

__all__ = ['TABLE', 'WSD', 'Constant', 'Cosine', 'Linear', 'Rsqrt', 'Schedule']
