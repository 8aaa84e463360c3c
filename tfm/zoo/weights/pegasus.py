"""Checkpoints of PEGASUS: BART's names and stored sinusoids."""

from tfm.zoo import bart, pegasus
from tfm.zoo.weights.bart import NAMES, TIED
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.marian import sinusoids

FAMILY = Family(
  'Pegasus', pegasus.read, bart.write_stacks, NAMES, 'model.', 'ForConditionalGeneration',
  tied=TIED, ignored=(r'^final_logits_bias$',), fixed=sinusoids,
)  # fmt: skip
