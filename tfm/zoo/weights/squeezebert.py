"""Checkpoints of SqueezeBERT: convolutions of width 1, and BERT's heads."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from tfm.zoo import squeezebert
from tfm.zoo.weights import bert
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Linear, Shape, Slot, renamed


@dataclasses.dataclass(frozen=True)
class Pointwise(Linear):
  """A grouped convolution of width 1, stored as `[out, in / groups, 1]`.

  In tfm it is a kernel for one group, else blocks `[groups, in / groups, out / groups]`.
  """

  def shape(self, slots: Sequence[Slot]) -> Shape:
    (slot,) = slots
    if slot.path.endswith('/blocks'):
      G, D, F = slot.shape
      return G * F, D, 1
    return (*slot.matrix[::-1], 1) if slot.n_in else super().shape(slots)

  def cut(self, tensor: np.ndarray, slots: Sequence[Slot]) -> list[np.ndarray]:
    (slot,) = slots
    if slot.path.endswith('/blocks'):
      G, D, F = slot.shape
      return [tensor.reshape(G, F, D).swapaxes(1, 2)]
    return super().cut(tensor[..., 0] if slot.n_in else tensor, slots)

  def join(self, arrays: Sequence[np.ndarray], slots: Sequence[Slot]) -> np.ndarray:
    (slot,) = slots
    if slot.path.endswith('/blocks'):
      return arrays[0].swapaxes(1, 2).reshape(self.shape(slots))
    return super().join(arrays, slots).reshape(self.shape(slots))


_LAYER = 'transformer.encoder.layers.*'
NAMES: Names = {
  **renamed(bert.NAMES, 'bert.', 'transformer.'),
  '*/mixer/q': Pointwise(f'{_LAYER}.attention.query'),
  '*/mixer/k': Pointwise(f'{_LAYER}.attention.key'),
  '*/mixer/v': Pointwise(f'{_LAYER}.attention.value'),
  '*/mixer/o': Pointwise(f'{_LAYER}.post_attention.conv1d'),
  '*/mixer_norm': f'{_LAYER}.post_attention.layernorm',
  '*/ffn/up': Pointwise(f'{_LAYER}.intermediate.conv1d'),
  '*/ffn/down': Pointwise(f'{_LAYER}.output.conv1d'),
  '*/ffn_norm': f'{_LAYER}.output.layernorm',
}
FAMILY = Family(
  'SqueezeBert', squeezebert.read, squeezebert.write, NAMES, 'transformer.', 'ForMaskedLM',
  bert.CLASSES,
  ('cls.predictions.decoder.weight',), bert.IGNORED,
)  # fmt: skip
