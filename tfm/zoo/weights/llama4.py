"""Checkpoints of the Llama 4 text model: Llama's attention, and two tensors for the experts."""

from tfm.zoo import llama4
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Stacked, renamed

_FEED = 'model.layers.*.feed_forward'

NAMES: Names = {
  **renamed(llama.NAMES, '.mlp.', '.feed_forward.'),
  '*/ffn/router/score': f'{_FEED}.router',
  ('*/ffn/expert/gate', '*/ffn/expert/up'): Stacked(f'{_FEED}.experts.gate_up_proj', conv=True),
  '*/ffn/expert/down': Stacked(f'{_FEED}.experts.down_proj', conv=True),
  '*/ffn/shared/gate': f'{_FEED}.shared_expert.gate_proj',
  '*/ffn/shared/up': f'{_FEED}.shared_expert.up_proj',
  '*/ffn/shared/down': f'{_FEED}.shared_expert.down_proj',
}

FAMILY = Family('Llama4', llama4.read, llama4.write, NAMES, body='TextModel')
