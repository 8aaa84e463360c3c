"""Table of activations. To add one, add a class and a table entry."""

from tfm.core.registry import Table
from tfm.parts.act.base import Act
from tfm.parts.act.elu import EluPlusOne
from tfm.parts.act.gelu import Gelu, GeluTanh, QuickGelu
from tfm.parts.act.relu import Relu, SquaredRelu
from tfm.parts.act.sigmoid import Sigmoid, Swish
from tfm.parts.act.tanh import Tanh

TABLE = Table(
  'activation',
  elu1=EluPlusOne,
  gelu=Gelu,
  gelu_tanh=GeluTanh,
  identity=Act,
  quick_gelu=QuickGelu,
  relu=Relu,
  relu2=SquaredRelu,
  sigmoid=Sigmoid,
  silu=Swish,
  tanh=Tanh,
)
