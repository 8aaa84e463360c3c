"""Checks of layers that use keys and values of other layers, or per-layer embeddings."""

from collections.abc import Iterator

from tfm.model.spec import Segment, Tower, blocks_with_width, resampled


def lends(segment: Segment) -> list[str]:
  """Return the names under which layers of a segment lend their keys and values."""
  return [name for block in segment.pattern for mixer in block.mixers if (name := mixer.lends)]


def violations(tower: Tower) -> Iterator[str]:
  """Yield a message for each missing or unused output that layers share."""
  yield from _borrowed(tower)
  assert tower.embed is not None
  width, used = tower.embed.layered, tower.residual.layered
  if width != used:
    yield (
      f'embed returns per-layer embeddings of width {width}, and residual uses {used} (0: none). '
      'Expected embed=per_layer and residual=altup with inputs of the same width, or neither.'
    )
  if tower.residual.in_blocks and resampled(tower):
    yield (
      'residual has parameters in every block, and a segment resamples. '
      'Expected residual=plain, or resample=none.'
    )


def _borrowed(tower: Tower) -> Iterator[str]:
  lent: dict[str, tuple[int, ...]] = {}
  used: set[str] = set()
  for path, _, block, width in blocks_with_width(tower):
    for mixer in block.mixers:
      name = mixer.lender
      if name and name not in lent:
        yield (
          f'{path}.mixer: no earlier layer lends {name!r}. '
          f'Expected an earlier layer with lends={name}, or mixer=attention.'
        )
      elif name and lent[name] != (shape := mixer.key_shape(width)):
        yield (
          f'{path}.mixer: the keys of {name!r} have shape {lent[name]} per token, and this layer '
          f'has {shape}. Expected the same shape.'
        )
      used.add(name)
      if mixer.lends:
        lent[mixer.lends] = mixer.key_shape(width)
  if unused := sorted(set(lent) - used):
    yield (
      f'no later layer uses the keys and values that lends={unused[0]} provides. '
      'Expected mixer=borrowed, or lends unset.'
    )
  if lent and tower.residual.reversible:
    yield (
      'residual=reversible recomputes each layer without the keys of other layers. '
      'Expected residual=plain, or lends unset.'
    )
