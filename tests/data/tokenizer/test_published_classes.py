"""The tokenizer classes of published folders."""

import pytest

from tfm.data.tokenizer.published import RECIPES
from tfm.data.tokenizer.published.choose import BACKEND, choose, plain_name
from tfm.data.tokenizer.published.refused import REFUSED
from tfm.data.tokenizer.published.slow import SPLITTERS
from tfm.zoo.weights import TABLE


@pytest.mark.oracle
def test_every_class_of_transformers_has_a_row():
  """Each class has a recipe, a splitter or a refusal: none falls back to another."""
  from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

  known = {*RECIPES, *SPLITTERS, *REFUSED}
  names = {name for name in TOKENIZER_MAPPING_NAMES.values() if name}
  assert {plain_name(name) for name in names} <= known


@pytest.mark.oracle
def test_model_types_have_the_classes_of_transformers(tmp_path):
  from transformers.models.auto.tokenization_auto import (
    MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS as WRONG,
  )
  from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

  for kind in [
    *TABLE,
    *(
      kind
      for kind in TOKENIZER_MAPPING_NAMES
      if choose(tmp_path, {}, {'model_type': kind}) != BACKEND
    ),
  ]:
    name = TOKENIZER_MAPPING_NAMES.get(kind)
    expected = BACKEND if name in (None, 'MistralCommonBackend') else plain_name(name)
    assert choose(tmp_path, {}, {'model_type': kind}) == expected, kind
    named = choose(tmp_path, {'tokenizer_class': 'LlamaTokenizerFast'}, {'model_type': kind})
    if kind in WRONG and name is not None:
      assert named == expected
    else:
      assert named == (BACKEND if expected == BACKEND and name is not None else 'LlamaTokenizer'), (
        kind
      )


def test_encoder_decoder_uses_the_tokenizer_of_its_encoder(tmp_path):
  model = {
    'model_type': 'encoder-decoder',
    'encoder': {'model_type': 'bert'},
    'decoder': {'model_type': 'gpt2'},
  }
  assert choose(tmp_path, {}, model) == 'BertTokenizer'


def test_each_class_has_a_single_reader():
  assert (
    not set(RECIPES) & set(SPLITTERS) | set(RECIPES) & set(REFUSED) | set(SPLITTERS) & set(REFUSED)
  )
