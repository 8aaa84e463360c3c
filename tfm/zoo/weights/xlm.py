"""Checkpoints of XLM and FlauBERT with their heads, except multiple choice and beam answers."""

from tfm.model.spec import Model
from tfm.parts.head.classify import Classify
from tfm.zoo import xlm
from tfm.zoo.fields import Fields
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.rules import Whole
from tfm.zoo.weights.tops import n_labels, with_classifier

_BODY = 'transformer'
NAMES: Names = {
  'embed/table': Whole(f'{_BODY}.embeddings.weight'),
  'embed/norm': f'{_BODY}.layer_norm_emb',
  'absolute': f'{_BODY}.position_embeddings',
  **{f'*/mixer/{n}': f'{_BODY}.attentions.*.{n}_lin' for n in 'qkv'},
  '*/mixer/o': f'{_BODY}.attentions.*.out_lin',
  '*/mixer_norm': f'{_BODY}.layer_norm1.*',
  '*/ffn/up': f'{_BODY}.ffns.*.lin1',
  '*/ffn/down': f'{_BODY}.ffns.*.lin2',
  '*/ffn_norm': f'{_BODY}.layer_norm2.*',
  'head/head': 'pred_layer.proj',
  'head/bias': Whole('pred_layer.proj.bias'),
  'classifier/out': 'classifier',
}


def _sequence(c: Fields, m: Model) -> Model:
  c.only(
    summary_type='first',
    summary_use_proj=True,
    summary_proj_to_labels=True,
    summary_activation=None,
  )
  return with_classifier(m, Classify(n_labels(c), dropout=c.get('summary_first_dropout', 0.1)))


TOPS = {
  'ForSequenceClassification': Top(_sequence, {'classifier/out': 'sequence_summary.summary'}),
  'ForTokenClassification': Top(
    lambda c, m: with_classifier(m, Classify(n_labels(c), 'each', dropout=c.get('dropout', 0.1)))
  ),
  'ForQuestionAnsweringSimple': Top(
    lambda c, m: with_classifier(m, Classify(2, 'each')), {'classifier/out': 'qa_outputs'}
  ),
}  # fmt: skip


def family(stem: str) -> Family:
  """Return a family that differs in its name only."""
  tied = ('pred_layer.proj.weight',)
  return Family(
    stem,
    xlm.read,
    xlm.write,
    NAMES,
    f'{_BODY}.',
    'WithLMHeadModel',
    TOPS,
    tied,
    (r'position_ids$',),
  )


FAMILY, FLAUBERT = family('XLM'), family('Flaubert')
