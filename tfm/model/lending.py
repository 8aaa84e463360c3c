"""Layers that use keys, values and vectors from elsewhere: what a stack must have for them."""

from collections.abc import Iterator

from tfm.model.spec import Segment, Tower, blocks_with_width, resampled


def lends(segment: Segment) -> list[str]:
  """Return the names under which layers of a segment lend their keys and values."""
  return [name for block in segment.pattern for mixer in block.mixers if (name := mixer.lends)]


def violations(tower: Tower) -> Iterator[str]:
  """Yield a sentence for each layer that lacks what it uses of others, and for what no layer uses."""
  yield from _borrowed(tower)
  assert tower.embed is not None
  given, used = tower.embed.layered, tower.residual.layered
  if given != used:
    yield (
      f'embed gives vectors for each layer of width {given}, and residual uses {used} (0: none). '
      f'Expected '
      'embed=per_layer and residual=altup with inputs of one width, or neither.'
    )
  if tower.residual.in_blocks and resampled(tower):
    yield 'residual has parameters in every block, and a segment resamples. Expected residual=plain, or resample=none.'


def _borrowed(tower: Tower) -> Iterator[str]:
  lent: dict[str, tuple[int, ...]] = {}
  used: set[str] = set()
  for path, _, block, width in blocks_with_width(tower):
    for mixer in block.mixers:
      name = mixer.lender
      if name and name not in lent:
        yield f'{path}.mixer: no earlier layer lends {name!r}. Expected lends={name} on one, or mixer=attention.'
      elif name and lent[name] != (own := mixer.key_shape(width)):
        yield f'{path}.mixer: keys of {name!r} are {lent[name]}, its own heads want {own}. Expected the same.'
      used.add(name)
      if mixer.lends:
        lent[mixer.lends] = mixer.key_shape(width)
  if unused := sorted(set(lent) - used):
    yield f'keys and values lent as {unused[0]!r} are used by no later layer. Expected mixer=borrowed, or lends unset.'
  if lent and tower.residual.reversible:
    yield 'residual=reversible computes layers again, without keys of others. Expected residual=plain, or lends unset.'
