"""Checkpoints of Whisper: BART's names, two convolutions, and stored position tables."""

from tfm.zoo import whisper
from tfm.zoo.weights.bart import NAMES as BART
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Taps, Whole

NAMES: Names = {
  **BART,
  'embed/table': Whole('model.decoder.embed_tokens.weight'),
  'encoder/embed/conv_0': Taps('model.encoder.conv1'),
  'encoder/embed/conv_1': Taps('model.encoder.conv2'),
}
FAMILY = Family(
  'Whisper', whisper.read, whisper.write, NAMES, 'model.', 'ForConditionalGeneration',
  tied=('proj_out.weight',)
)  # fmt: skip
