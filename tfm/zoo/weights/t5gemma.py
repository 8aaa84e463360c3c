"""Checkpoints of T5Gemma."""

from tfm.zoo import t5gemma
from tfm.zoo.weights.family import Family, Names

_LAYER = {
  **{f'mixer/{n}': f'self_attn.{n}_proj' for n in 'qkvo'},
  **{f'cross/{n}': f'cross_attn.{n}_proj' for n in 'qkvo'},
  **{f'ffn/{n}': f'mlp.{n}_proj' for n in ('gate', 'up', 'down')},
  **{
    f'{path}_{place}norm': f'{"post" if place else "pre"}_{name}_layernorm'
    for path, name in (('mixer', 'self_attn'), ('cross', 'cross_attn'), ('ffn', 'feedforward'))
    for place in ('', 'post_')
  },
}
NAMES: Names = {
  'embed': 'model.decoder.embed_tokens',
  'encoder/embed': 'model.encoder.embed_tokens',
  **{f'*/{path}': f'model.decoder.layers.*.{name}' for path, name in _LAYER.items()},
  **{f'encoder/*/{path}': f'model.encoder.layers.*.{name}' for path, name in _LAYER.items()},
  'norm': 'model.decoder.norm',
  'encoder/norm': 'model.encoder.norm',
  'head/head': 'lm_head.out_proj',
}

FAMILY = Family(
  'T5Gemma', t5gemma.read, t5gemma.write, NAMES, 'model.', 'ForConditionalGeneration',
  tied=('lm_head.out_proj.weight',),
)  # fmt: skip
