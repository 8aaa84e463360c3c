import dataclasses

import numpy as np
import pytest

from tfm.tasks import CausalLM


def test_labels_are_the_next_tokens_shifted_once(data):
  task = CausalLM()
  corpus = data.open(task)
  raw = corpus.batch('train', 0, 0)
  batch = task.features(raw, corpus)
  np.testing.assert_array_equal(batch['labels'][:, :-1], batch['input_ids'][:, 1:])
  np.testing.assert_array_equal(batch['input_ids'], raw['tokens'][:, :64])
  assert batch['weights'].all()
  assert set(batch) == {'input_ids', 'labels', 'weights'}


def test_no_label_crosses_a_document_when_isolated(data):
  task = CausalLM()
  corpus = dataclasses.replace(data, isolate=True).open(task)
  raw = corpus.batch('train', 0, 0)
  batch = task.features(raw, corpus)
  assert raw['segments'].max() > 1
  following = raw['segments'][:, 1:]
  np.testing.assert_array_equal(
    batch['weights'] > 0, (batch['segment_ids'] == following) & (following > 0)
  )


def test_isolated_documents_are_predicted_with_their_end_token(data):
  task = CausalLM()
  corpus = dataclasses.replace(data, isolate=True, length=511).open(task)
  batch = task.features(corpus.batch('train', 0, 0), corpus)
  starts = (batch['position_ids'] == 0) & (batch['segment_ids'] > 0)
  assert starts.sum() > 1
  assert (batch['input_ids'][starts] == corpus.vocabulary.eos).all()
  ends = (batch['labels'] == corpus.vocabulary.eos) & (batch['weights'] > 0)
  assert ends.sum() == starts.sum()


def test_evaluation_predicts_every_token_but_the_first(data):
  task = CausalLM()
  corpus = data.open(task)
  predicted = sum(
    task.features(raw, corpus)['weights'].sum() for raw in corpus.eval_batches('val', 8)
  )
  assert predicted == len(corpus.store.splits['val'].tokens) - 1


def test_single_file_of_characters_has_no_special_tokens(tmp_path, data):
  (tmp_path / 'a.txt').write_text('abc' * 100)
  corpus = dataclasses.replace(data, files=str(tmp_path / 'a.txt'), cache=str(tmp_path)).open(
    CausalLM()
  )
  assert corpus.vocab == 3


def test_causal_lm_needs_one_causal_tower(model):
  task = CausalLM()
  assert not list(task.fits(model()))
  (leak,) = task.fits(model(causal=False))
  assert 'leaks later tokens, which are its labels' in leak
  (two,) = task.fits(model(encoder=object()))
  assert 'needs a single tower, but the model is an encoder-decoder' in two


@pytest.mark.parametrize('isolate', [False, True])
def test_segment_ids_exist_only_with_isolation(data, isolate):
  task = CausalLM()
  corpus = dataclasses.replace(data, isolate=isolate).open(task)
  batch = task.features(corpus.batch('train', 0, 0), corpus)
  assert ('segment_ids' in batch) == ('position_ids' in batch) == isolate
