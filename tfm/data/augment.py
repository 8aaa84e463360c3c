"""Random changes of training images, as pure functions of example keys."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfm.data import stateless_rng
from tfm.data.distort import OPERATIONS

Keys = NDArray[np.uint64]
Pixels = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Augment:
  """Random crops, flips, distortions and mixtures of training images.

  The defaults change nothing. With mixup or cutmix, labels are probabilities [B, classes].

  Attributes:
    pad: Black pixels added on each side before a random crop to the original size.
    flip: Mirror half of the images left to right.
    distort: Number of random distortions of each image, usually 2 (RandAugment,
      arXiv:1909.13719).
    strength: The largest distortion, as a fraction of its range. RandAugment's magnitude m is
      m / 30.
    mixup: Parameter a of Beta(a, a), the share of a second image that is blended in
      (arXiv:1710.09412). 0 turns it off.
    cutmix: The same for a pasted rectangle (arXiv:1905.04899). With both, each image gets either
      at random.
  """

  pad: int = 0
  flip: bool = False
  distort: int = 0
  strength: float = 0.3
  mixup: float = 0.0
  cutmix: float = 0.0

  @property
  def mixes(self) -> bool:
    """Whether images of different examples are mixed."""
    return self.mixup > 0 or self.cutmix > 0

  @property
  def changes(self) -> bool:
    """Whether pixel values change. Crops and flips only move pixels."""
    return self.distort > 0

  def move(self, pixels: NDArray[Any], key_B: Keys) -> NDArray[Any]:
    """Return images [B, C, H, W] of any dtype, cropped and flipped."""
    if self.pad:
      pixels = crop(pixels, self.pad, key_B)
    if self.flip:
      mirrored = stateless_rng.uniform(key_B, 'flip', 1)[:, 0] < 0.5
      pixels = np.where(mirrored[:, None, None, None], pixels[..., ::-1], pixels)
    return pixels

  def change(self, pixels: Pixels, key_B: Keys) -> Pixels:
    """Return images [B, C, H, W] of values from 0 to 1, distorted."""
    kinds = (stateless_rng.uniform(key_B, 'distortion', self.distort) * len(OPERATIONS)).astype(int)
    amounts = self.strength * (2 * stateless_rng.uniform(key_B, 'amount', self.distort) - 1)
    operations = list(OPERATIONS.values())
    out = np.empty_like(pixels)
    for row, image in enumerate(pixels):
      for kind, amount in zip(kinds[row], amounts[row], strict=True):
        image = operations[kind](image, float(amount))
      out[row] = image
    return out

  def mix(
    self, images: Pixels, partners: Pixels, target: Pixels, partner_target: Pixels, key_B: Keys
  ) -> tuple[Pixels, Pixels]:
    """Mix images with partners, and mix their labels by the same shares.

    Args:
      images: Images [B, C, H, W].
      partners: The partner of each image.
      target: Label probabilities [B, classes].
      partner_target: The label probabilities of the partners.
      key_B: The random key of each example.

    Returns:
      The mixed images and labels.
    """
    from scipy import special  # imported here, because it takes long

    both = self.mixup > 0 and self.cutmix > 0
    probability = 0.5 if both else float(self.cutmix > 0)
    pastes_B = stateless_rng.uniform(key_B, 'cutmix', 1)[:, 0] < probability
    a_B = np.where(pastes_B, self.cutmix, self.mixup)
    share_B = special.betaincinv(a_B, a_B, stateless_rng.uniform(key_B, 'share', 1)[:, 0])
    box_BHW = boxes(share_B, images.shape[2:], key_B)
    share_B = np.where(pastes_B, box_BHW.mean((1, 2)), share_B).astype(np.float32)
    blend_BHW = np.where(pastes_B[:, None, None], box_BHW, share_B[:, None, None]).astype(
      np.float32
    )
    blend_BCHW = blend_BHW[:, None]
    pixels = images * (1 - blend_BCHW) + partners * blend_BCHW
    return pixels, target * (1 - share_B)[:, None] + partner_target * share_B[:, None]

  def check(self) -> Iterator[str]:
    for name in ('pad', 'distort', 'mixup', 'cutmix'):
      if (value := getattr(self, name)) < 0:
        yield f'{name}: is {value}. Expected 0 or more.'
    if not 0 < self.strength <= 1:
      yield (
        f'strength: is {self.strength}. Expected more than 0, at most 1. distort=0 turns '
        'distortions off.'
      )


def crop(pixels: NDArray[Any], pad: int, key_B: Keys) -> NDArray[Any]:
  """Shift images by up to `pad` pixels in each direction, and fill with zeros.

  Args:
    pixels: Images [B, C, H, W].
    pad: The largest shift in pixels.
    key_B: The random key of each example.

  Returns:
    Images of the same shape.
  """
  H, W = pixels.shape[2:]
  places = (stateless_rng.uniform(key_B, 'crop', 2) * (2 * pad + 1)).astype(int)
  padded = np.pad(pixels, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
  out = np.empty_like(pixels)
  for row, (top, left) in enumerate(places):
    out[row] = padded[row, :, top : top + H, left : left + W]
  return out


def boxes(share_B: NDArray[Any], shape: tuple[int, ...], key_B: Keys) -> NDArray[np.bool_]:
  """Return random rectangles of a given area.

  Centres are uniform, and rectangles are cut off at the edges.

  Args:
    share_B: The share of the area, before it is cut off.
    shape: Height and width of the images.
    key_B: The random key of each example.

  Returns:
    Masks [B, H, W].
  """
  centres = stateless_rng.uniform(key_B, 'box', 2)
  inside = []
  for axis, size in enumerate(shape):
    centre, half = centres[:, axis] * size, np.sqrt(share_B) * size / 2
    first, last = (np.clip(np.rint(x), 0, size)[:, None] for x in (centre - half, centre + half))
    at = np.arange(size)[None]
    inside.append((at >= first) & (at < last))
  return inside[0][:, :, None] & inside[1][:, None, :]
