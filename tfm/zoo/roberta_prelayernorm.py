"""RoBERTa with pre-norm layers, as fairseq trains it (Wettig et al., 2022)."""

from tfm.model.spec import Model
from tfm.zoo import roberta
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields
from tfm.zoo.megatron_bert import pre_norm

PAPER = 'Should You Mask 15% in Masked Language Modeling?, arXiv:2202.08005'


def roberta_prelayernorm(layers: int, d: int, heads: int) -> Model:
  """Return a pre-norm RoBERTa with normalised embeddings and a final norm.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec of the model.
  """
  return pre_norm(roberta.roberta(layers, d, heads), embed_norm=True)


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with a masked-LM head."""
  return pre_norm(roberta.read(c), embed_norm=True)


MODELS = {
  'roberta-prelayernorm-large': Entry(
    roberta_prelayernorm(24, 1024, 16), 355_414_105, '355M', PAPER
  )
}
