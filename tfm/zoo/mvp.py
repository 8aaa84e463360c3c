"""MVP (Tang et al., 2022): BART pre-trained on many supervised tasks."""

from tfm.model.spec import Model
from tfm.zoo import bart
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields

PAPER = 'MVP: Multi-task Supervised Pre-training for Natural Language Generation, arXiv:2206.12131'


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`.

  Configs with `use_prompt` are an error, because tfm has no prompt tuning.
  """
  c.only(use_prompt=False)
  c.skip('prompt_length', 'prompt_mid_dim')
  return bart.read(c)


MODELS = {'mvp': Entry(bart.bart(12, 1024, 16, 50_267), 406_343_771, '406M', PAPER)}
