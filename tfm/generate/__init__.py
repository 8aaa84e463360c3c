"""Going on from prompts. The package is the function too: `tfm.generate(spec, params, prompts,
...)`.
"""

import sys
import types
from typing import Any

from tfm.generate.decode import generate as generate
from tfm.generate.decode import stream as stream
from tfm.generate.detokenizer import Detokenizer as Detokenizer
from tfm.generate.drafts import Draft as Draft
from tfm.generate.drafts import Later as Later
from tfm.generate.drafts import Lookup as Lookup
from tfm.generate.drafts import Smaller as Smaller
from tfm.generate.language import detect_language as detect_language
from tfm.generate.options import Options as Options
from tfm.generate.prepare import prepare as prepare
from tfm.generate.sampling import Sampling as Sampling


class _Callable(types.ModuleType):
  # Importing any module in here binds `tfm.generate` to the package, over the function of that
  # name.
  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    return generate(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
