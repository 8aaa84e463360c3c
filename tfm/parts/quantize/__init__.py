"""Table of quantizations of projections. To add one, add a file and a table entry."""

from tfm.core.registry import Table
from tfm.parts.quantize.base import Quantize as Quantize
from tfm.parts.quantize.fp8 import FP8
from tfm.parts.quantize.int4 import Int4
from tfm.parts.quantize.int8 import Int8

TABLE = Table('quantization', none=Quantize, int8=Int8, fp8=FP8, int4=Int4)
"""Quantizations of projections, by name."""
