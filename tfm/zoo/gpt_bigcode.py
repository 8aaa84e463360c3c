"""SantaCoder and StarCoder (BigCode, 2023): GPT-2 with multi-query attention."""

from typing import Any

from tfm.model.spec import Model
from tfm.zoo import gpt2
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = 'StarCoder: may the source be with you!, arXiv:2305.06161'
SANTA = "SantaCoder: don't reach for the stars!, arXiv:2301.03988"


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  # Rounding of the softmax, and settings of the inference program.
  c.skip(
    'attention_softmax_in_fp32',
    'scale_attention_softmax_in_fp32',
    'inference_runner',
    'pad_key_length',
  )
  c.skip('num_key_value_heads', 'max_batch_size', 'max_sequence_length', 'pre_allocate_kv_cache')
  c.skip('runner_max_sequence_length', 'validate_runner_input')
  c.only(scale_attn_by_inverse_layer_idx=False)
  return gpt2.read(c, 1 if c.get('multi_query', True) else None)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  fields = {**gpt2.write(m), 'multi_query': m.segments[0].pattern[0].mixer.kv_heads == 1}
  if fields['activation_function'] == 'gelu_new':
    fields['activation_function'] = 'gelu_pytorch_tanh'  # the same function under another name
  return fields


MODELS = {
  'santacoder': Entry(gpt2.gpt2(24, 2048, 16, 1, 49_280, 2048), 1_124_886_528, '1.1B', SANTA),
  'starcoder': Entry(gpt2.gpt2(40, 6144, 48, 1, 49_152, 8192), 15_517_456_384, '15.5B', PAPER),
}
