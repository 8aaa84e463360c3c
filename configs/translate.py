r"""Translate English verses to Spanish with the original encoder-decoder (arXiv:1706.03762).

  apt-get download sword-text-kjv sword-text-sparv
  for file in sword-text-*.deb; do dpkg-deb -x $file sword; done
  modules=sword/usr/share/sword/modules/texts/ztext
  python scripts/prepare_pairs.py verses $modules/engKJV2006eb $modules/spaRV1909eb verses.tsv
  tfm train --config=translate --config.data.files=verses.tsv --workdir=runs/translate
  tfm eval --checkpoint=runs/translate --metrics=bleu,chrf --beams=4 --length_penalty=0.6

The recipe of the paper at a small size: post-norm, one table for both languages and the logits,
sinusoids, the inverse square root schedule, label smoothing 0.1. The 31,084 pairs of verses are
split by book. Time and BLEU are not measured yet.
"""

from tfm.data import Pairs
from tfm.data.tokenizer import Bpe
from tfm.model.spec import Block, Model, Segment, Tower
from tfm.optim import AdamW
from tfm.optim.schedule import Rsqrt
from tfm.parts.absolute import Sinusoidal
from tfm.parts.act import Relu
from tfm.parts.cross import CrossAttention
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Mlp
from tfm.parts.init import Xavier
from tfm.parts.mask import Mask
from tfm.parts.mixer import Attention
from tfm.parts.norm import LayerNorm
from tfm.parts.residual_layout import Post
from tfm.tasks import Seq2Seq
from tfm.train import Experiment, Record


def get_config() -> Experiment:
  """Return 3 + 3 layers of width 256, for 20,000 steps of 32 packed rows."""
  norm, ffn, d = LayerNorm(1e-6), Mlp(1024, Relu()), 256
  reader = Block(Attention(4, mask=Mask(), bias='qkvo'), ffn, norm, Post(), dropout=0.1)
  cross = CrossAttention(4, bias='qkvo')
  writer = Block(Attention(4, bias='qkvo'), ffn, norm, Post(), cross, dropout=0.1)
  encoder = Tower(segments=(Segment((reader,), 3),), absolute=Sinusoidal(), norm=norm)
  return Experiment(
    model=Model(
      Tokens(8002, power=0.5, dropout=0.1),
      d,
      (Segment((writer,), 3),),
      Sinusoidal(),
      norm,
      init=Xavier(),
      towers={'encoder': encoder},
    ),
    data=Pairs(tokenizer=Bpe(8000), group='3', length=192, packing='best_fit', batch=32),
    task=Seq2Seq(label_smoothing=0.1, smooth_gold=False),
    optim=AdamW(
      lr=1.0, schedule=Rsqrt(warmup=4000, d_model=d), b2=0.98, eps=1e-9, decay=0.0, clip=None
    ),
    steps=20_000,
    save_every=1000,
    eval_every=1000,
    record=Record(eval_batches=20, sample=None),
  )
