"""VaultGemma (Google, 2025): a pre-norm Gemma 2, trained with differential privacy."""

import dataclasses
from typing import Any

from tfm.model.spec import Model
from tfm.parts.residual_layout.pre import Pre
from tfm.zoo import gemma2
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.layers import layers_of, segments


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  spec = gemma2.read(c)
  layers = [dataclasses.replace(block, residual_layout=Pre()) for block in layers_of(spec)]
  return dataclasses.replace(spec, segments=segments(layers))


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return gemma2.write(m)
