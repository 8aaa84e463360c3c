"""Every mixer. To add one, write a file and add it to `TABLE`."""

from tfm.core.registry import Table
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.base import Mixer as Mixer
from tfm.parts.mixer.bigbird import BigBirdAttention
from tfm.parts.mixer.borrowed import Borrowed
from tfm.parts.mixer.bottleneck import Bottleneck
from tfm.parts.mixer.conv import Conv
from tfm.parts.mixer.disentangled import Disentangled
from tfm.parts.mixer.fourier import Fourier
from tfm.parts.mixer.gated_conv import GatedConv
from tfm.parts.mixer.gated_delta import GatedDelta
from tfm.parts.mixer.global_local import GlobalLocal
from tfm.parts.mixer.grouped import GroupedAttention
from tfm.parts.mixer.hierarchical import Hierarchical
from tfm.parts.mixer.lightning import Lightning
from tfm.parts.mixer.linear import LinearAttention
from tfm.parts.mixer.longformer import Longformer
from tfm.parts.mixer.lstm import LSTM
from tfm.parts.mixer.mamba import Mamba
from tfm.parts.mixer.mamba2 import Mamba2
from tfm.parts.mixer.mla import MLA
from tfm.parts.mixer.rglru import RGLRU
from tfm.parts.mixer.span_conv import SpanConv
from tfm.parts.mixer.sum import Sum
from tfm.parts.mixer.transient import Transient

TABLE = Table(
  'mixer',
  attention=Attention,
  bigbird=BigBirdAttention,
  borrowed=Borrowed,
  bottleneck=Bottleneck,
  conv=Conv,
  disentangled=Disentangled,
  fourier=Fourier,
  gated_conv=GatedConv,
  gated_delta=GatedDelta,
  global_local=GlobalLocal,
  grouped=GroupedAttention,
  hierarchical=Hierarchical,
  lightning=Lightning,
  linear=LinearAttention,
  longformer=Longformer,
  lstm=LSTM,
  mamba=Mamba,
  mamba2=Mamba2,
  mla=MLA,
  rglru=RGLRU,
  span_conv=SpanConv,
  sum=Sum,
  transient=Transient,
)
