"""Checkpoints of T5 with its heads, and the names that its relatives share."""

from typing import Any

from tfm.model.spec import Model
from tfm.parts.act.tanh import Tanh
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.classify import Classify
from tfm.zoo import t5
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.rules import Whole
from tfm.zoo.weights.tops import encoder_alone, n_labels, with_classifier

#: (tfm's prefix, the checkpoint's prefix, index of the feed-forward sublayer).
STACKS = (('encoder/', 'encoder', 1), ('', 'decoder', 2))
_DENSE = {'up': 'wi', 'down': 'wo'}


def names(
  m: FamilyModel, encoder_attention: str = 'SelfAttention', ffn: str = 'DenseReluDense'
) -> Names:
  """Return the names of both stacks, or of the encoder alone.

  Args:
    m: spec of the model.
    encoder_attention: name of the encoder's attention module.
    ffn: name of the feed-forward module.

  Returns:
    The names of all modules.
  """
  gated = isinstance(m.segments[0].pattern[0].ffn, Glu)
  ffn_names = {'gate': 'wi_0', 'up': 'wi_1', 'down': 'wo'} if gated else _DENSE
  stem = _stem(m)
  mapping: dict[Any, Any] = {
    'embed': f'{stem}shared',
    'head/head': 'lm_head',
    'classifier/hidden': 'classification_head.dense',
    'classifier/out': 'classification_head.out_proj',
    '*/cross_norm': f'{stem}decoder.block.*.layer.1.layer_norm',
  }
  mapping |= {f'*/cross/{n}': f'{stem}decoder.block.*.layer.1.EncDecAttention.{n}' for n in 'qkvo'}
  for prefix, stack, last in STACKS if m.encoder is not None else [('', 'encoder', 1)]:
    layer = f'{stem}{stack}.block.*.layer'
    attention = encoder_attention if last == 1 else 'SelfAttention'
    mapping |= {f'{prefix}*/mixer/{n}': f'{layer}.0.{attention}.{n}' for n in 'qkvo'}
    mapping |= {f'{prefix}*/ffn/{o}': f'{layer}.{last}.{ffn}.{t}' for o, t in ffn_names.items()}
    mapping |= {
      f'{prefix}*/ffn/expert/{o}': f'{layer}.{last}.{ffn}.experts.expert_*.{t}'
      for o, t in _DENSE.items()
    }
    mapping |= {f'{prefix}*/ffn/router/score': f'{layer}.{last}.{ffn}.router.classifier'}
    mapping |= {
      f'{prefix}*/mixer_norm': f'{layer}.0.layer_norm',
      f'{prefix}*/ffn_norm': f'{layer}.{last}.layer_norm',
    }
    bias = f'{layer}.0.{attention}.relative_attention_bias.weight'
    mapping |= {
      f'{prefix}*/mixer/relative/table': Whole(bias),
      f'{prefix}norm': f'{stem}{stack}.final_layer_norm',
    }
    mapping |= {f'{prefix}shared_relative/table': Whole(bias.replace('*', '0'))}
  return mapping


def _stem(m: FamilyModel) -> str:
  """Return the prefix of the tensors; classifiers have one, except of question answering."""
  top = m.classifier
  return 'transformer.' if top is not None and (m.encoder is None or top.hidden is not None) else ''


def _last_token(c: Fields, m: Model) -> Model:
  """Return `m` with a classifier of the decoder's last token.

  transformers pools the decoder token at the position of the last `eos` in the source instead.
  """
  classifier = Classify(
    n_labels(c), 'last', hidden=Tanh(), dropout=c.get('classifier_dropout', 0.0)
  )
  return with_classifier(m, classifier)


def _tokens(c: Fields, m: Model) -> Model:
  return with_classifier(
    encoder_alone(m), Classify(n_labels(c), 'each', dropout=c.get('classifier_dropout', 0.0))
  )


TOPS = {
  'EncoderModel': Top(lambda c, m: encoder_alone(m)),
  'ForSequenceClassification': Top(_last_token),
  'ForTokenClassification': Top(_tokens, {'classifier/out': 'classifier'}),
  'ForQuestionAnswering': Top(
    lambda c, m: with_classifier(m, Classify(2, 'each')), {'classifier/out': 'qa_outputs'}
  ),
}
TIED = (
  'lm_head.weight',
  *(
    f'{stem}{stack}.embed_tokens.weight'
    for stem in ('', 'transformer.')
    for stack in ('encoder', 'decoder')
  ),
)
#: Unused tensors that old versions wrote.
IGNORED = (r'decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$',)

#: Former name of the class with the head.
_FORMER = {'WithLMHeadModel': Top(lambda c, m: m)}
FAMILY = Family(
  'T5', t5.read, t5.write, names, '', 'ForConditionalGeneration', TOPS | _FORMER, TIED, IGNORED
)
