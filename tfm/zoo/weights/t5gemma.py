"""Checkpoints of T5Gemma."""

from tfm.zoo import t5gemma
from tfm.zoo.weights.family import Family, Names

_LAYER = {
  **{f'mixer/{n}': f'self_attn.{n}_proj' for n in 'qkvo'},
  **{f'cross/{n}': f'cross_attn.{n}_proj' for n in 'qkvo'},
  **{f'ffn/{n}': f'mlp.{n}_proj' for n in ('gate', 'up', 'down')},
  **{
    f'{ours}_{place}norm': f'{"post" if place else "pre"}_{theirs}_layernorm'
    for ours, theirs in (('mixer', 'self_attn'), ('cross', 'cross_attn'), ('ffn', 'feedforward'))
    for place in ('', 'post_')
  },
}
NAMES: Names = {
  'embed': 'model.decoder.embed_tokens',
  'encoder/embed': 'model.encoder.embed_tokens',
  **{f'*/{ours}': f'model.decoder.layers.*.{theirs}' for ours, theirs in _LAYER.items()},
  **{f'encoder/*/{ours}': f'model.encoder.layers.*.{theirs}' for ours, theirs in _LAYER.items()},
  'norm': 'model.decoder.norm',
  'encoder/norm': 'model.encoder.norm',
  'head/head': 'lm_head.out_proj',
}

FAMILY = Family(
  'T5Gemma', t5gemma.read, t5gemma.write, NAMES, 'model.', 'ForConditionalGeneration',
  tied=('lm_head.out_proj.weight',),
)  # fmt: skip
