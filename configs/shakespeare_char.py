"""nanoGPT's character model for a CPU: 0.8M parameters, 2000 steps.

  tfm train --config=shakespeare_char --config.data.files=tinyshakespeare.txt --workdir=runs/a

The validation loss after 2000 steps is 1.805 (seed 0, whole validation split). nanoGPT reports 1.88
on 20 random batches. With nanoGPT's learning rate (--config.optim.lr=1e-3
--config.optim.schedule.floor=0.1) it is 1.91 with seed 0 and 1.90 with seed 1.
"""

from tfm.data.text import Text
from tfm.data.tokenizer import Char
from tfm.model.spec import Block, Model, Segment
from tfm.optim import AdamW
from tfm.optim.schedule import Cosine
from tfm.parts.absolute import Learned
from tfm.parts.act import Gelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Mlp
from tfm.parts.mixer import Attention
from tfm.parts.norm import LayerNorm
from tfm.train import Experiment, Record, Sample


def get_config() -> Experiment:
  """Return GPT-2's block without biases: 4 layers of 4 heads and width 128."""
  norm = LayerNorm(bias=False)
  block = Block(Attention(heads=4), Mlp(512, Gelu(), bias=False), norm)
  return Experiment(
    model=Model(
      embed=Tokens(65),
      d_model=128,
      segments=(Segment((block,), 4),),
      absolute=Learned(64),
      norm=norm,
    ),
    data=Text(tokenizer=Char(), length=64, batch=12),
    optim=AdamW(
      lr=2e-3, schedule=Cosine(warmup=100, floor=0.05), b1=0.9, b2=0.99, decay=0.1, clip=1.0
    ),
    steps=2000,
    save_every=500,
    eval_every=500,
    loop='unroll',
    record=Record(eval_batches=40, sample=Sample(tokens=256)),
  )
