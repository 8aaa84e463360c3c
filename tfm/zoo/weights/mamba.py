"""Checkpoints of Mamba, Falcon Mamba and Mamba-2."""

from typing import Any

from tfm.parts.mixer.mamba2 import INPUTS
from tfm.zoo import mamba
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Depthwise, Flat, Fused, Whole


def mixer_names(kind: str, layer: str, path: str | None = None) -> Names:
  """Return the names of a Mamba or Mamba-2 mixer.

  Args:
    kind: 'mamba' or 'mamba2'.
    layer: name of the mixer's module in checkpoints.
    path: path of the mixer in tfm; None is that of mixers of this kind.

  Returns:
    The names of its modules.
  """
  path = path or f'*/{kind}'
  return {
    f'{path}/conv': Depthwise(f'{layer}.conv1d'),
    f'{path}/start': Whole(f'{layer}.A_log'),
    f'{path}/skip': Whole(f'{layer}.D'),
    f'{path}/o': f'{layer}.out_proj',
    **(_selective(path, layer) if kind == 'mamba' else _second(path, layer)),
  }


def _selective(path: str, layer: str) -> Names:
  return {
    (f'{path}/x', f'{path}/gate'): Fused(f'{layer}.in_proj'),
    (f'{path}/rank', f'{path}/b', f'{path}/c'): Fused(f'{layer}.x_proj'),
    f'{path}/step': f'{layer}.dt_proj',
    f'{path}/shift': Whole(f'{layer}.dt_proj.bias'),
  }


def _second(path: str, layer: str) -> Names:
  return {
    tuple(f'{path}/{name}' for name in INPUTS): Fused(f'{layer}.in_proj'),
    f'{path}/shift': Whole(f'{layer}.dt_bias'),
    f'{path}/norm': Flat(f'{layer}.norm.weight'),
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
