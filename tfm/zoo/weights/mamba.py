"""Checkpoints of Mamba, Falcon Mamba and Mamba-2."""

from typing import Any

from tfm.parts.mixer.mamba2 import INPUTS
from tfm.zoo import mamba
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Depthwise, Flat, Fused, Whole


def mixer_names(kind: str, layer: str, ours: str | None = None) -> Names:
  """Return the names of a Mamba or Mamba-2 mixer.

  Args:
    kind: 'mamba' or 'mamba2'.
    layer: name of the mixer's module in checkpoints.
    ours: path of the mixer in tfm; None is that of mixers of this kind.

  Returns:
    The names of its modules.
  """
  ours = ours or f'*/{kind}'
  return {
    f'{ours}/conv': Depthwise(f'{layer}.conv1d'),
    f'{ours}/start': Whole(f'{layer}.A_log'),
    f'{ours}/skip': Whole(f'{layer}.D'),
    f'{ours}/o': f'{layer}.out_proj',
    **(_selective(ours, layer) if kind == 'mamba' else _second(ours, layer)),
  }


def _selective(ours: str, layer: str) -> Names:
  return {
    (f'{ours}/x', f'{ours}/gate'): Fused(f'{layer}.in_proj'),
    (f'{ours}/rank', f'{ours}/b', f'{ours}/c'): Fused(f'{layer}.x_proj'),
    f'{ours}/step': f'{layer}.dt_proj',
    f'{ours}/shift': Whole(f'{layer}.dt_proj.bias'),
  }


def _second(ours: str, layer: str) -> Names:
  return {
    tuple(f'{ours}/{name}' for name in INPUTS): Fused(f'{layer}.in_proj'),
    f'{ours}/shift': Whole(f'{layer}.dt_bias'),
    f'{ours}/norm': Flat(f'{layer}.norm.weight'),
  }


_LAYER = 'backbone.layers.*'
NAMES: Names = {
  'embed': 'backbone.embeddings',
  '*/mixer_norm': f'{_LAYER}.norm',
  **mixer_names('mamba', f'{_LAYER}.mixer'),
  **mixer_names('mamba2', f'{_LAYER}.mixer'),
  'norm': 'backbone.norm_f',
  'head/head': 'lm_head',
}

_COMMON: dict[str, Any] = {'prefix': 'backbone.'}

#: The original checkpoints name the table `embedding`.
_ALIASES = {'backbone.embedding': 'backbone.embeddings'}

FAMILY = Family('Mamba', mamba.read, mamba.write, NAMES, aliases=_ALIASES, **_COMMON)
FALCON = Family('FalconMamba', mamba.read_falcon, mamba.write_falcon, NAMES, **_COMMON)
SECOND = Family('Mamba2', mamba.read_2, mamba.write_2, NAMES, **_COMMON)
