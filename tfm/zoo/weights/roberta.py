"""Checkpoints of RoBERTa and its relatives with all of their heads."""

from collections.abc import Callable

from tfm.model.spec import Model
from tfm.parts.act.tanh import Tanh
from tfm.parts.head.classify import Classify
from tfm.zoo import bert_decoder, roberta
from tfm.zoo.fields import Fields
from tfm.zoo.weights import bert
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.rules import Whole, renamed
from tfm.zoo.weights.tops import classifier_dropout, n_labels, with_classifier

#: The masked-LM head under the name `lm_head`, with its bias.
HEAD: Names = {
  'head/transform': 'lm_head.dense',
  'head/norm': 'lm_head.layer_norm',
  'head/bias': Whole('lm_head.bias'),
}
NAMES: Names = {**renamed(bert.NAMES, 'bert.', 'roberta.'), **HEAD}

#: A sequence classifier with its own transform in place of the pooler.
SEQUENCE = Top(
  lambda c, m: with_classifier(
    m, Classify(n_labels(c), hidden=Tanh(), dropout=classifier_dropout(c, m))
  ),
  {'classifier/hidden': 'classifier.dense', 'classifier/out': 'classifier.out_proj'},
)
TOPS = {**bert.CLASSES, 'ForSequenceClassification': SEQUENCE, 'ForCausalLM': bert.AS_DECODER}
IGNORED = (r'position_ids$', r'^lm_head\.decoder\.bias$', r'pooler\.dense\.')


def family(
  stem: str,
  body: str = 'roberta.',
  read: Callable[[Fields], Model] = roberta.read,
  ignored: tuple[str, ...] = (),
) -> Family:
  """Return a family that differs from RoBERTa in its names only.

  Args:
    stem: first part of its class names.
    body: prefix of its tensors.
    read: function from the fields of a config to a spec.
    ignored: further patterns of ignored tensors.

  Returns:
    The family.
  """
  names = renamed(NAMES, 'roberta.', body)
  tied = ('lm_head.decoder.weight',)
  either, write = bert_decoder.reader(read), bert_decoder.writer(roberta.write)
  return Family(stem, either, write, names, body, 'ForMaskedLM', TOPS, tied, (*IGNORED, *ignored))


FAMILY, CAMEMBERT, XLM = family('Roberta'), family('Camembert'), family('XLMRoberta')
DATA2VEC = family('Data2VecText', 'data2vec_text.')
#: I-BERT's integer buffers and ranges, unused if `quant_mode` is false.
_INTEGERS = r'(weight_integer|bias_integer|scaling_factor|x_min|x_max|LayerNorm\.shift)$'
IBERT = family('IBert', 'ibert.', roberta.read_ibert, (_INTEGERS,))
