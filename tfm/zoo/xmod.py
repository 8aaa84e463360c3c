"""X-MOD: RoBERTa with an adapter per language in each layer (Pfeiffer et al., 2022)."""

import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Model
from tfm.parts.act.base import Act
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.ffn.moe import Moe
from tfm.parts.residual_layout.adapted import Adapted
from tfm.parts.router.language import Language
from tfm.zoo import roberta
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = (
  'Lifting the Curse of Multilinguality by Pre-training Modular Transformers, arXiv:2205.06266'
)


def xmod(layers: int, d: int, heads: int, languages: int = 81) -> Model:
  """Return an XLM-R with an adapter per language, which the input `lang_ids` selects.

  Args:
    layers: number of layers.
    d: width of the residual stream; the adapters have half of it.
    heads: number of attention heads.
    languages: number of languages.

  Returns:
    The spec of the model.
  """
  spec = roberta.roberta(layers, d, heads, 250_002)
  router = Language(languages=tuple(map(str, range(languages))), default=None)
  return adapted(spec, d // 2, router, languages, Adapted())


def adapted(
  spec: Any, width: int, router: Language, languages: int, residual_layout: Adapted
) -> Model:
  """Return a RoBERTa with adapters after each feed-forward.

  Args:
    spec: the RoBERTa.
    width: hidden width of the adapters.
    router: router of the adapters.
    languages: number of languages.
    residual_layout: residual layout with the adapters.

  Returns:
    The changed spec.
  """
  (block,) = spec.segments[0].pattern
  act: Act = block.ffn.act
  adapters = Moe(languages, router, Mlp(width, act))
  block = dataclasses.replace(block, second_ffn=adapters, residual_layout=residual_layout)
  return dataclasses.replace(
    spec, segments=(dataclasses.replace(spec.segments[0], pattern=(block,)),)
  )


def read(c: Fields) -> Model:
  """Return the spec of a published config, with a masked-LM head."""
  names, default = tuple(map(str, c.get('languages', ('en_XX',)))), c.get('default_language')
  if default is not None and default not in names:
    raise errors.UserError(
      f'{c.where}: default_language: {errors.unknown("language", default, names)}'
    )
  router = Language(languages=names, default=None if default is None else names.index(default))
  reads = 'own' if c.get('adapter_layer_norm', False) else 'ffn'
  if reads == 'ffn' and not c.get('adapter_reuse_layer_norm', True):
    reads = 'none'
  c.skip('adapter_reuse_layer_norm')  # unused with a separate norm
  kinds: dict[str, Any] = {'pre': c.get('pre_norm', False), 'reads': reads}
  width = int(c['hidden_size'] // c.get('adapter_reduction_factor', 2))
  return adapted(
    roberta.read(c),
    width,
    router,
    len(names),
    Adapted(**kinds, inside=c.get('ln_before_adapter', True)),
  )


def names_of(m: FamilyModel) -> tuple[str, ...]:
  """Return the names of the languages of a model; unnamed ones have their index."""
  adapters = m.segments[0].pattern[0].second_ffn
  return tuple((*adapters.router.languages, *map(str, range(adapters.experts)))[: adapters.experts])


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the published fields of a spec."""
  block, names = m.segments[0].pattern[0], names_of(m)
  default, width, layout = (
    block.second_ffn.router.default,
    block.second_ffn.expert.d_ff,
    block.residual_layout,
  )
  factor = m.d_model / width
  if factor.is_integer():
    factor = int(factor)
  return {
    **roberta.write(m), 'languages': list(names),
    'default_language': None if default is None else names[default],
    'adapter_reduction_factor': factor,
    'pre_norm': layout.pre,
    'adapter_layer_norm': layout.reads == 'own', 'adapter_reuse_layer_norm': layout.reads == 'ffn',
    'ln_before_adapter': layout.inside,
  }  # fmt: skip


MODELS = {'xmod-base': Entry(xmod(12, 768, 12), 852_723_858, '852M', PAPER)}
