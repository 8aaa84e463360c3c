"""A language model of Python source, trained in under five minutes on two CPU cores.

  tfm train --config=quickstart --workdir=runs/quickstart

The text is the source of the standard library of your Python.
"""

from tfm.data import Stdlib
from tfm.data.tokenizer import Bpe
from tfm.model.spec import Block, Model, Segment
from tfm.optim import Muon
from tfm.optim.schedule import WSD
from tfm.parts.act import SquaredRelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Mlp
from tfm.parts.mixer import Attention
from tfm.parts.norm import RMSNorm
from tfm.parts.relative import RoPE
from tfm.train import Experiment, Record, Sample


def get_config() -> Experiment:
  """4 layers of width 128, 1.3M parameters: so little time is better spent on more text than on
  more parameters.
  """
  attention = Attention(heads=2, relative=RoPE(), qk_norm=RMSNorm())
  block = Block(attention, Mlp(512, SquaredRelu(), bias=False), RMSNorm())
  return Experiment(
    model=Model(embed=Tokens(4104), d_model=128, segments=(Segment((block,), 4),)),
    data=Stdlib(tokenizer=Bpe(4096), length=256, batch=8),
    optim=Muon(
      lr=0.02, adam_lr=5e-3, schedule=WSD(warmup=20, fraction=0.5, shape='linear'), decay=0.0
    ),
    steps=800,
    save_every=200,
    eval_every=200,
    loop='unroll',
    record=Record(eval_batches=20, sample=Sample(prompt='\n    def', tokens=96)),
  )
