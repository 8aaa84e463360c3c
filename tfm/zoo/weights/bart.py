"""Checkpoints of BART with its heads, and the names that its relatives share."""

from tfm.model.spec import Model
from tfm.parts.act.tanh import Tanh
from tfm.parts.head.classify import Classify
from tfm.zoo import bart
from tfm.zoo.fields import Fields
from tfm.zoo.weights.family import Family, Names, Top, nested
from tfm.zoo.weights.rules import Row, Whole
from tfm.zoo.weights.tops import n_labels, with_classifier

_ATTENTION = {'q': 'q_proj', 'k': 'k_proj', 'v': 'v_proj', 'o': 'out_proj'}
_LAYER = {
  **nested(_ATTENTION, 'mixer/', 'self_attn.'),
  **nested(_ATTENTION, 'cross/', 'encoder_attn.'),
  'ffn/up': 'fc1',
  'ffn/down': 'fc2',
  'mixer_norm': 'self_attn_layer_norm',
  'cross_norm': 'encoder_attn_layer_norm',
  'ffn_norm': 'final_layer_norm',
}
NAMES: Names = {
  'embed/table': Whole('model.shared.weight'),
  'embed/norm': 'model.decoder.layernorm_embedding',
  'encoder/embed/norm': 'model.encoder.layernorm_embedding',
  'absolute': 'model.decoder.embed_positions',
  'encoder/absolute': 'model.encoder.embed_positions',
  **nested(_LAYER, '*/', 'model.decoder.layers.*.'),
  **nested(_LAYER, 'encoder/*/', 'model.encoder.layers.*.'),
  'norm': 'model.decoder.layer_norm',
  'encoder/norm': 'model.encoder.layer_norm',
  'head/bias': Row('final_logits_bias'),
  'classifier/hidden': 'classification_head.dense',
  'classifier/out': 'classification_head.out_proj',
}
#: Names of further uses of the token table.
TIED = ('lm_head.weight', 'model.encoder.embed_tokens.weight', 'model.decoder.embed_tokens.weight')


def _last_token(c: Fields, spec: Model) -> Model:
  """Return `spec` with a classifier of the decoder's last token.

  transformers pools the decoder token at the position of the last `eos` in the source instead.
  """
  dropout = c.get('classifier_dropout', c.get('classif_dropout', 0.0))
  return with_classifier(spec, Classify(n_labels(c), 'last', hidden=Tanh(), dropout=dropout))


TOPS = {
  'ForSequenceClassification': Top(_last_token),
  'ForQuestionAnswering': Top(
    lambda c, m: with_classifier(m, Classify(2, 'each')), {'classifier/out': 'qa_outputs'}
  ),
}
FAMILY = Family(
  'Bart', bart.read, bart.write_stacks, NAMES, 'model.', 'ForConditionalGeneration', TOPS, TIED,
  (r'^final_logits_bias$',),
)  # fmt: skip
