"""Table of residual scales. To add one, add a file and a table entry."""

from tfm.core.registry import Table
from tfm.parts.residual_scale.base import ResidualScale as ResidualScale
from tfm.parts.residual_scale.fixed import Fixed
from tfm.parts.residual_scale.gate import Gate
from tfm.parts.residual_scale.gru import Gru
from tfm.parts.residual_scale.layer_scale import LayerScale
from tfm.parts.residual_scale.rezero import ReZero

TABLE = Table(
  'residual_scale',
  fixed=Fixed,
  gate=Gate,
  gru=Gru,
  layer_scale=LayerScale,
  none=ResidualScale,
  rezero=ReZero,
)
"""Residual scales, by name."""
