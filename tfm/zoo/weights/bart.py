"""Checkpoints of BART with its heads, and the names that its relatives share."""

from tfm.parts.act.tanh import Tanh
from tfm.parts.head.classify import Classify
from tfm.zoo import bart
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.rules import Row, Whole
from tfm.zoo.weights.tops import n_labels, with_classifier

_LAYER = {
  **{f'mixer/{n}': f'self_attn.{n}_proj' for n in 'qkv'}, 'mixer/o': 'self_attn.out_proj',
  **{f'cross/{n}': f'encoder_attn.{n}_proj' for n in 'qkv'}, 'cross/o': 'encoder_attn.out_proj',
  'ffn/up': 'fc1', 'ffn/down': 'fc2',
  'mixer_norm': 'self_attn_layer_norm', 'cross_norm': 'encoder_attn_layer_norm',
  'ffn_norm': 'final_layer_norm',
}  # fmt: skip
NAMES: Names = {
  'embed/table': Whole('model.shared.weight'),
  'embed/norm': 'model.decoder.layernorm_embedding',
  'encoder/embed/norm': 'model.encoder.layernorm_embedding',
  'absolute': 'model.decoder.embed_positions',
  'encoder/absolute': 'model.encoder.embed_positions',
  **{f'*/{path}': f'model.decoder.layers.*.{name}' for path, name in _LAYER.items()},
  **{f'encoder/*/{path}': f'model.encoder.layers.*.{name}' for path, name in _LAYER.items()},
  'norm': 'model.decoder.layer_norm',
  'encoder/norm': 'model.encoder.layer_norm',
  'head/bias': Row('final_logits_bias'),
  'classifier/hidden': 'classification_head.dense',
  'classifier/out': 'classification_head.out_proj',
}
#: Names of further uses of the token table.
TIED = ('lm_head.weight', 'model.encoder.embed_tokens.weight', 'model.decoder.embed_tokens.weight')


def _last_token(c, spec):
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
