"""Checkpoints of OPT."""

from tfm.zoo import opt
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.tops import GPT

NAMES: Names = {
  'embed': 'model.decoder.embed_tokens',
  'embed/project': 'model.decoder.project_in',
  'embed/back': 'model.decoder.project_out',
  'absolute': 'model.decoder.embed_positions',
  '*/mixer/q': 'model.decoder.layers.*.self_attn.q_proj',
  '*/mixer/k': 'model.decoder.layers.*.self_attn.k_proj',
  '*/mixer/v': 'model.decoder.layers.*.self_attn.v_proj',
  '*/mixer/o': 'model.decoder.layers.*.self_attn.out_proj',
  '*/ffn/up': 'model.decoder.layers.*.fc1',
  '*/ffn/down': 'model.decoder.layers.*.fc2',
  '*/mixer_norm': 'model.decoder.layers.*.self_attn_layer_norm',
  '*/ffn_norm': 'model.decoder.layers.*.final_layer_norm',
  'norm': 'model.decoder.final_layer_norm',
  'head/head': 'lm_head',
}

FAMILY = Family(
  'OPT', opt.read, opt.write, NAMES,
  tops={name: GPT[name] for name in ('ForSequenceClassification', 'ForQuestionAnswering')},
)  # fmt: skip
