"""T5's checkpoints."""

from typing import Any

from tfm.parts.ffn.glu import Glu
from tfm.zoo import t5
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Whole

#: Ours, theirs, and which sublayer of theirs the feed-forward is.
STACKS = (('encoder/', 'encoder', 1), ('', 'decoder', 2))


def names(m: Any) -> Names:
  """The names of both stacks; a gated feed-forward has two ways in."""
  gated = isinstance(m.segments[0].pattern[0].ffn, Glu)
  ways = {'gate': 'wi_0', 'up': 'wi_1'} if gated else {'up': 'wi'}
  found: dict[Any, Any] = {
    'embed': 'shared',
    'head/head': 'lm_head',
    '*/cross_norm': 'decoder.block.*.layer.1.layer_norm',
  }
  found |= {f'*/cross/{n}': f'decoder.block.*.layer.1.EncDecAttention.{n}' for n in 'qkvo'}
  for ours, theirs, last in STACKS:
    layer = f'{theirs}.block.*.layer'
    found |= {f'{ours}*/mixer/{n}': f'{layer}.0.SelfAttention.{n}' for n in 'qkvo'}
    found |= {f'{ours}*/ffn/{o}': f'{layer}.{last}.DenseReluDense.{t}' for o, t in {**ways, 'down': 'wo'}.items()}
    found |= {f'{ours}*/mixer_norm': f'{layer}.0.layer_norm', f'{ours}*/ffn_norm': f'{layer}.{last}.layer_norm'}
    bias = f'{theirs}.block.0.layer.0.SelfAttention.relative_attention_bias.weight'
    found |= {f'{ours}shared_relative/table': Whole(bias), f'{ours}norm': f'{theirs}.final_layer_norm'}
  return found


FAMILY = Family(
  'T5', t5.read, t5.write, names, '', 'ForConditionalGeneration',
  tied=('lm_head.weight', 'encoder.embed_tokens.weight', 'decoder.embed_tokens.weight'),
  ignored=(r'^decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$',),
)  # fmt: skip
