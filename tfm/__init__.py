"""A functional transformer zoo in JAX: models assembled from parts by typed configs, trained on any
mesh.

The public names load on first use, so `import tfm` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tfm.version import __version__ as __version__

if TYPE_CHECKING:
  from tfm import zoo as zoo
  from tfm.generate.decode import generate as generate
  from tfm.hub import export_hf as export_hf
  from tfm.hub import export_programs as export_programs
  from tfm.hub import load as load
  from tfm.model.cache import init_cache as init_cache
  from tfm.model.count import count_params as count_params
  from tfm.model.quantized import quantize as quantize
  from tfm.model.spec import Model as Model
  from tfm.model.transformer import apply as apply
  from tfm.model.transformer import init as init
  from tfm.parts.context import Run as Run

#: Public name -> where it lives (a module, or module:attribute).
_PUBLIC = {
  'Model': 'tfm.model.spec:Model',
  'Run': 'tfm.parts.context:Run',
  'export_hf': 'tfm.hub:export_hf',
  'export_programs': 'tfm.hub:export_programs',
  'apply': 'tfm.model.transformer:apply',
  'count_params': 'tfm.model.count:count_params',
  'generate': 'tfm.generate',
  'init': 'tfm.model.transformer:init',
  'init_cache': 'tfm.model.cache:init_cache',
  'load': 'tfm.hub:load',
  'quantize': 'tfm.model.quantized:quantize',
  'zoo': 'tfm.zoo',
}
__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
  if name not in _PUBLIC:
    raise AttributeError(f'module tfm has no name {name!r}. Public: {", ".join(sorted(_PUBLIC))}.')
  module, _, attribute = _PUBLIC[name].partition(':')
  loaded = importlib.import_module(module)
  value = getattr(loaded, attribute) if attribute else loaded
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted([*globals(), *_PUBLIC])
