"""Every adapter; a new one is a new file and a new row."""

from tfm.core.registry import Table
from tfm.parts.adapter.base import Adapter
from tfm.parts.adapter.lora import LoRA

TABLE = Table('adapter', lora=LoRA, none=Adapter)
