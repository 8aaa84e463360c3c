"""Table of adapters. To add one, add a file and a table entry."""

from tfm.core.registry import Table
from tfm.parts.adapter.base import Adapter
from tfm.parts.adapter.lora import LoRA

TABLE = Table('adapter', lora=LoRA, none=Adapter)
