import dataclasses

import numpy as np
import pytest

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu, Moe
from tfm.parts.mask import Causal, Mask, Prefix
from tfm.parts.mixer import Attention
from tfm.parts.router import ExpertChoice
from tfm.tasks import PrefixLM


def _batch(data, task, step=0):
  corpus = data.open(task)
  raw = corpus.batch('train', 0, step)
  return raw, task.features(raw, corpus)


def test_only_tokens_after_the_prefix_are_predicted(data):
  _, batch = _batch(data, PrefixLM())
  for prefix, weights in zip(batch['prefix_mask'], batch['weights'], strict=True):
    m = prefix.sum()
    assert prefix.tolist() == [1] * m + [0] * (64 - m)
    # The last token of the prefix predicts the first token after it.
    assert weights.tolist() == [0] * (m - 1) + [1] * (64 - m + 1)


def test_prefix_lengths_are_uniform(data):
  lengths = np.concatenate(
    [_batch(data, PrefixLM(), s)[1]['prefix_mask'].sum(1) for s in range(30)]
  )
  assert lengths.min() >= 1
  assert lengths.max() <= 64
  assert abs(lengths.mean() - 32) < 4 * 64 / (12 * lengths.size) ** 0.5 + 0.5


def test_share_of_the_prefix_can_be_set(data):
  _, batch = _batch(data, PrefixLM(min_prefix=0.5, max_prefix=0.5))
  assert set(batch['prefix_mask'].sum(1)) == {32}


@pytest.mark.parametrize('share', [0.0, 1.0])
def test_prefix_has_a_token_and_leaves_one_to_predict(data, share):
  _, batch = _batch(data, PrefixLM(min_prefix=share, max_prefix=share))
  assert set(batch['prefix_mask'].sum(1)) == {64 if share else 1}
  assert batch['weights'].any(1).all()


def test_every_isolated_document_has_its_own_prefix(data):
  raw, batch = _batch(dataclasses.replace(data, isolate=True), PrefixLM())
  for row in range(32):
    for document in range(1, raw['segments'][row].max() + 1):
      mine = batch['segment_ids'][row] == document
      if (size := (raw['segments'][row] == document).sum()) > 1:
        m = batch['prefix_mask'][row][mine].sum()
        assert 1 <= m < size
        assert batch['weights'][row][mine].sum() == size - m


def test_loss_may_include_the_prefix(data):
  assert _batch(data, PrefixLM(loss_on_prefix=True))[1]['weights'].all()


def test_prefix_lm_needs_a_mask_that_hides_its_labels(model):
  assert not list(PrefixLM().fits(model()))
  assert not list(PrefixLM().fits(model(causal=False, reads_prefix=True)))
  assert 'leaks later tokens' in next(PrefixLM().fits(model(causal=False, ahead=True)))
  assert 'leaks later tokens' in next(
    PrefixLM().fits(model(causal=False, reads_prefix=True, ahead=True))
  )
  (leak,) = PrefixLM(loss_on_prefix=True).fits(model(causal=False, reads_prefix=True))
  assert 'attends to its whole prefix' in leak
  assert 'needs a single tower' in next(PrefixLM().fits(model(encoder=object())))


def test_ahead_marks_models_that_leak_tokens_after_the_prefix():
  attention = lambda mask: Block(Attention(2, mask=mask), Glu(8))
  spec = lambda *blocks: Model(Tokens(8), 8, (Segment(blocks),))
  assert not spec(attention(Causal()), attention(Prefix())).ahead
  assert spec(attention(Prefix()), attention(Mask())).ahead
  assert spec(Block(Attention(2, mask=Prefix()), Moe(2, ExpertChoice()))).ahead


def test_impossible_prefixes_are_an_error():
  assert list(PrefixLM(min_prefix=0.8, max_prefix=0.2).check()) == [
    'min_prefix, max_prefix: are 0.8 and 0.2. Expected 0 <= min <= max <= 1.'
  ]
