"""A language model of Python, from the source of the standard library, in about five minutes on two CPU cores.

tfm train --config=quickstart --workdir=runs/quickstart
"""

from tfm.data import Stdlib
from tfm.data.tokenizer import Bpe
from tfm.model.spec import Block, Model, Segment
from tfm.optim import AdamW
from tfm.optim.schedule import WSD
from tfm.parts.ffn import Glu
from tfm.parts.mixer import Attention
from tfm.parts.norm import RMSNorm
from tfm.parts.relative import RoPE
from tfm.train import Experiment, Record, Sample


def get_config() -> Experiment:
  """4 layers of width 192: about 2M parameters with a vocabulary of 2048 (and its end-of-text token)."""
  block = Block(Attention(heads=6, kv_heads=2, relative=RoPE()), Glu(d_ff=512), RMSNorm())
  return Experiment(
    model=Model(vocab=2056, d_model=192, segments=(Segment((block,), 4),)),
    data=Stdlib(tokenizer=Bpe(2048), length=256, batch=8),
    optim=AdamW(lr=4e-3, schedule=WSD(warmup=50), b1=0.9, b2=0.95, decay=0.1),
    steps=1000,
    save_every=250,
    eval_every=250,
    loop='unroll',
    record=Record(eval_batches=20, sample=Sample(prompt='def ', tokens=128)),
  )
