"""Every gain; a new one is a new file and a new row."""

from tfm.core.registry import Table
from tfm.parts.gain.base import Gain as Gain
from tfm.parts.gain.fixed import Fixed
from tfm.parts.gain.gate import Gate
from tfm.parts.gain.gru import Gru
from tfm.parts.gain.layer_scale import LayerScale
from tfm.parts.gain.rezero import ReZero

TABLE = Table('gain', fixed=Fixed, gate=Gate, gru=Gru, layer_scale=LayerScale, none=Gain, rezero=ReZero)
"""What a branch is multiplied by before it joins the residual stream."""
