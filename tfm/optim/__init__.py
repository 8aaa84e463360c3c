"""Optimizers, as configs of optax chains. A new one is a new file and a row here."""

from tfm.core.registry import Table
from tfm.optim.adafactor import Adafactor
from tfm.optim.adamw import AdamW
from tfm.optim.base import Optim
from tfm.optim.lion import Lion
from tfm.optim.muon import Muon
from tfm.optim.sgd import SGD

TABLE = Table('optimizer', adamw=AdamW, adafactor=Adafactor, lion=Lion, muon=Muon, sgd=SGD)

__all__ = ['SGD', 'TABLE', 'Adafactor', 'AdamW', 'Lion', 'Muon', 'Optim']
