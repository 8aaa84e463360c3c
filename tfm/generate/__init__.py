"""Text generation. The package is callable: `tfm.generate(spec, params, prompts, ...)`.

`generate` decodes a batch of prompts, `stream` yields its tokens step by step, and `prepare` lays
out parameters once for many calls. `few_shot` writes prompts with worked examples, and `vote`
takes the majority answer of several samples. `rank` compares choices by their log-probability.
"""

import sys
import types
from typing import Any

from tfm.generate.decode import generate as generate
from tfm.generate.decode import stream as stream
from tfm.generate.detokenizer import Detokenizer as Detokenizer
from tfm.generate.drafts import Draft as Draft
from tfm.generate.drafts import LookupDraft as LookupDraft
from tfm.generate.drafts import ModelDraft as ModelDraft
from tfm.generate.drafts import MTPDraft as MTPDraft
from tfm.generate.language import detect_language as detect_language
from tfm.generate.likelihood import log_likelihoods as log_likelihoods
from tfm.generate.likelihood import rank as rank
from tfm.generate.options import Options as Options
from tfm.generate.prepare import prepare as prepare
from tfm.generate.sampling import Sampling as Sampling
from tfm.generate.voting import answer_after as answer_after
from tfm.generate.voting import few_shot as few_shot
from tfm.generate.voting import majority as majority
from tfm.generate.voting import vote as vote


class _Callable(types.ModuleType):
  # Importing a module of this package binds `tfm.generate` to the package, over the function.
  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    return generate(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
