"""Checkpoints of X-MOD: RoBERTa's names, and adapters under the names of their languages."""

import dataclasses

from tfm.model.spec import Model
from tfm.zoo import bert_decoder, xmod
from tfm.zoo.weights import roberta
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Linear

_LAYER = 'roberta.encoder.layer.*'


@dataclasses.dataclass(frozen=True)
class OfLanguage(Linear):
  """A linear layer per expert, stored under the name of its language."""

  languages: tuple[str, ...] = ()

  def expert(self, number: int) -> str:
    return self.languages[number]


def _names(spec: Model) -> Names:
  languages, adapter = xmod.names_of(spec), f'{_LAYER}.output.adapter_modules.*'
  return {
    **roberta.NAMES,
    'norm': 'roberta.encoder.LayerNorm',
    '*/second_ffn/expert/up': OfLanguage(f'{adapter}.dense1', languages),
    '*/second_ffn/expert/down': OfLanguage(f'{adapter}.dense2', languages),
    '*/second_ffn_norm': f'{_LAYER}.output.adapter_layer_norm',
  }


FAMILY = Family(
  'Xmod', bert_decoder.reader(xmod.read), bert_decoder.writer(xmod.write), _names, 'roberta.',
  'ForMaskedLM',
  roberta.TOPS, ('lm_head.decoder.weight',), roberta.IGNORED,
)  # fmt: skip
