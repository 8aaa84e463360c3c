"""The page of supported text models of transformers."""

import functools
import importlib.util
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.oracle


@functools.cache
def _script():
  spec = importlib.util.spec_from_file_location('text_models', ROOT / 'scripts' / 'text_models.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_page_of_text_models_is_up_to_date():
  text = _script().PAGE.read_text('utf-8')
  assert text == _script().page(), 'run python scripts/text_models.py'


def test_unsupported_classes_have_reasons():
  without_reason = [
    (row.kind, row.architecture) for row in _script().rows() if not row.read and not row.reason
  ]
  assert not without_reason


@pytest.mark.parametrize(
  ('kind', 'architecture', 'read'),
  [
    ('llama', 'LlamaForCausalLM', True),
    ('bert', 'BertLMHeadModel', True),
    ('gemma3', 'Gemma3ForConditionalGeneration', True),
    ('gpt-sw3', 'GPT2LMHeadModel', True),
    ('mamba', 'SurelyNoClass', False),
    ('llama', 'LlamaForDreaming', False),
  ],
)
def test_class_is_supported_if_a_family_has_it(kind, architecture, read):
  assert _script().reads(kind, architecture) is read


def test_reasons_list_types_of_transformers():
  kinds = {row.kind for row in _script().rows()}
  named = {kind for kinds in _script().REASONS.values() for kind in kinds.split()}
  assert not sorted(named - kinds), 'not in transformers'
