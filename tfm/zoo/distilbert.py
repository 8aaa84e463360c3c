"""DistilBERT (Sanh et al., 2019): BERT with half of the layers and no token types."""

import dataclasses
from typing import Any

from tfm.model.spec import Model
from tfm.parts.embed.tokens import Tokens
from tfm.zoo import bert
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = (
  'DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter, arXiv:1910.01108'
)

#: Field of DistilBERT -> field of BERT.
_NAMES = {
  'vocab_size': 'vocab_size', 'dim': 'hidden_size', 'n_layers': 'num_hidden_layers',
  'n_heads': 'num_attention_heads',
  'hidden_dim': 'intermediate_size', 'max_position_embeddings': 'max_position_embeddings',
  'activation': 'hidden_act',
  'dropout': 'hidden_dropout_prob', 'attention_dropout': 'attention_probs_dropout_prob',
}  # fmt: skip
_DEFAULTS = {
  'vocab_size': 30_522, 'dim': 768, 'n_layers': 6, 'n_heads': 12, 'hidden_dim': 3072,
  'max_position_embeddings': 512,
  'activation': 'gelu', 'dropout': 0.1, 'attention_dropout': 0.1,
}  # fmt: skip


def distilbert(depth: int, d: int, heads: int) -> Model:
  """Return a BERT without token types.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec of the model.
  """
  return bert.bert(depth, d, heads, types=0)


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with a masked-LM head."""
  c.skip(
    'sinusoidal_pos_embds', 'qa_dropout', 'seq_classif_dropout', 'output_past'
  )  # initialization of the position table
  c.only(tie_word_embeddings=True)
  c.skip('tie_weights_')
  values = {bert_name: c.get(name, _DEFAULTS[name]) for name, bert_name in _NAMES.items()}
  spec: Any = bert.read(Fields({**values, 'layer_norm_eps': 1e-12}, c.where))
  return dataclasses.replace(
    spec, embed=Tokens(spec.vocab, norm=spec.norm, dropout=spec.embed.dropout)
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  fields = bert.write(m)
  return {name: fields[bert_name] for name, bert_name in _NAMES.items()}


MODELS = {'distilbert-base': Entry(distilbert(6, 768, 12), 66_985_530, '66M', PAPER)}
