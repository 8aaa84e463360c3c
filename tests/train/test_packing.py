"""Packed training computes the losses of unpacked training."""

import dataclasses

import jax
import numpy as np
import pytest

from tfm.data import Text
from tfm.data.tokenizer import Byte
from tfm.model import transformer
from tfm.model.spec import Block, Model, Segment
from tfm.parts.context import Run
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu
from tfm.parts.mixer import Attention
from tfm.tasks import CausalLM
from tfm.tasks.xent import cross_entropy


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """Documents of 3 to 39 bytes, which are all different."""
  root = tmp_path_factory.mktemp('texts')
  for i in range(24):
    (root / f'{i:02}.txt').write_text(
      f'{i:02}' + 'the quick brown fox jumps over lazy dogs'[: 1 + i % 38]
    )
  return Text(
    files=f'{root}/*.txt', tokenizer=Byte(), length=40, batch=8, val_tail=0, cache=str(root)
  )  # fmt: skip


@pytest.fixture(scope='module')
def losses():
  """Return the loss of each token of each document of a training epoch, by the document."""
  block = Block(Attention(heads=2), Glu(d_ff=32))
  model = Model(embed=Tokens(257), d_model=16, segments=(Segment((block,), 2),))
  params = transformer.init(model, jax.random.key(0), Run())

  @jax.jit
  def nll(batch):
    inputs = {k: v for k, v in batch.items() if k not in ('labels', 'weights')}
    logits = transformer.apply(model, params, run=Run(), **inputs)['logits']
    return cross_entropy(logits, batch['labels']).nll

  def of(data):
    task, found = CausalLM(), {}
    corpus = data.open(task)
    for raw in corpus.eval_batches('train', 8):
      batch = task.features(raw, corpus)
      values = np.asarray(nll(batch))
      for row, segments in enumerate(batch['segment_ids']):
        for segment in range(1, segments.max() + 1):
          inside = (segments == segment) & (batch['weights'][row] > 0)
          text = tuple(batch['labels'][row][inside].tolist())
          if text:  # a begin token at the end of a window has no label
            assert text not in found
            found[text] = values[row][inside]
    return found

  return of


@pytest.mark.parametrize('packing', ['best_fit', 'stream_segments'])
def test_packed_losses_equal_unpacked_losses_token_for_token(data, losses, packing):
  alone = losses(dataclasses.replace(data, packing='none'))
  packed = losses(dataclasses.replace(data, packing=packing))
  assert len(alone) == 24
  # Windows of the stream split some documents, whose tokens then have less context.
  whole = alone.keys() & packed.keys()
  assert len(whole) == 24 if packing == 'best_fit' else len(whole) > 8
  assert sum(map(len, packed)) == sum(map(len, alone))
  for text in whole:
    np.testing.assert_allclose(packed[text], alone[text], atol=1e-5)
