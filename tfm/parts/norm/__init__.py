"""Table of normalisations. To add one, add a file and a table entry."""

from tfm.core.registry import Table
from tfm.parts.norm.adaptive import AdaptiveNorm
from tfm.parts.norm.affine import Affine
from tfm.parts.norm.base import Norm as Norm
from tfm.parts.norm.capsule import CapsuleNorm
from tfm.parts.norm.fix import FixNorm
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.norm.scale import ScaleNorm

TABLE = Table(
  'norm',
  adaptive=AdaptiveNorm,
  affine=Affine,
  capsule=CapsuleNorm,
  fixnorm=FixNorm,
  layer=LayerNorm,
  rms=RMSNorm,
  scale=ScaleNorm,
)
