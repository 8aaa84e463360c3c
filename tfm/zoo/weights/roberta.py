"""RoBERTa's checkpoints, and those of its family, with all of their heads."""

from tfm.parts.act.tanh import Tanh
from tfm.parts.head.classify import Classify
from tfm.zoo import bert_decoder, roberta
from tfm.zoo.weights import bert
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.rules import Whole, renamed
from tfm.zoo.weights.tops import classifying, dropped, n_labels

#: The head that is called `lm_head`, with a bias of its own.
HEAD: Names = {
  'head/transform': 'lm_head.dense',
  'head/norm': 'lm_head.layer_norm',
  'head/bias': Whole('lm_head.bias'),
}
NAMES: Names = {**renamed(bert.NAMES, 'bert.', 'roberta.'), **HEAD}

#: A classifier that has the pooler's numbers under names of its own.
SEQUENCE = Top(
  lambda c, m: classifying(m, Classify(n_labels(c), hidden=Tanh(), dropout=dropped(c, m))),
  {'classifier/hidden': 'classifier.dense', 'classifier/out': 'classifier.out_proj'},
)
TOPS = {**bert.CLASSES, 'ForSequenceClassification': SEQUENCE, 'ForCausalLM': bert.AS_DECODER}
IGNORED = (r'position_ids$', r'^lm_head\.decoder\.bias$', r'pooler\.dense\.')


def family(stem: str) -> Family:
  """A family that differs by its name."""
  read, write = bert_decoder.reader(roberta.read), bert_decoder.writer(roberta.write)
  return Family(stem, read, write, NAMES, 'roberta.', 'ForMaskedLM', TOPS, ('lm_head.decoder.weight',), IGNORED)


FAMILY, CAMEMBERT, XLM = family('Roberta'), family('Camembert'), family('XLMRoberta')
