"""XLM-R XL and XXL (Goyal et al., 2021): a pre-norm XLM-R."""

from tfm.model.spec import Model
from tfm.zoo import roberta
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields
from tfm.zoo.megatron_bert import pre_norm

PAPER = 'Larger-Scale Transformers for Multilingual Masked Language Modeling, arXiv:2105.00572'


def xlm_roberta_xl(layers: int, d: int, heads: int) -> Model:
  """Return a pre-norm RoBERTa with a final norm and unnormalised embeddings.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec of the model.
  """
  return pre_norm(roberta.roberta(layers, d, heads, 250_880))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with its masked-LM head.

  Note:
    Dropout also follows the feed-forward, where transformers has none.
  """
  return pre_norm(roberta.read(c))


MODELS = {
  'xlm-roberta-xl': Entry(xlm_roberta_xl(36, 2560, 32), 3_482_741_760, '3.5B', PAPER),
  'xlm-roberta-xxl': Entry(xlm_roberta_xl(48, 4096, 32), 10_712_994_816, '10.7B', PAPER),
}
