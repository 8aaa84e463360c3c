"""Table of feed-forward networks. To add one, add a file and a table entry."""

from tfm.core.registry import Table
from tfm.parts.ffn.base import FFN as FFN
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.grouped_mlp import GroupedMlp
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.ffn.moe import Moe
from tfm.parts.ffn.xielu import Xielu

TABLE = Table('feed-forward', glu=Glu, grouped_mlp=GroupedMlp, mlp=Mlp, moe=Moe, xielu=Xielu)
