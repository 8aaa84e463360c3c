"""Whether the tensors of a checkpoint are those that a family's plan wants, and the sentence that lists what is not."""

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np

from tfm.core import errors
from tfm.hub.tensors import Tensors
from tfm.zoo.weights import Published, Tensor, plan

_MOST = 12
_ROWS = 1024


def match(where: str, published: Published, tensors: Tensors) -> list[Tensor]:
  """The tensors that hold the parameters of a published model, under the names that the checkpoint has for them.

  Raises: UserError that lists every tensor that is missing, that nothing knows, or that has another shape.
  """
  family = published.family
  wanted = plan(family, published.spec, published.ending)
  # A body alone has no prefix before its names; some checkpoints say otherwise than their class.
  theirs = {family.bare(name): name for name in tensors}
  found = [theirs.get(t.name.removeprefix(family.prefix), t.name) for t in wanted]
  wanted = [dataclasses.replace(t, name=name) for t, name in zip(wanted, found, strict=True)]
  names = {t.name for t in wanted}
  missing = sorted(names - set(tensors))
  twice = {name for tied in family.tied for name in (tied, tied.removeprefix(family.prefix))}
  idle, twins = family.ignored_of(published.spec), family.twins(published.spec)
  fixed = family.fixed_of(published.spec, published.ending)
  said = names | twice | set(fixed) | set(twins)
  extra = sorted(n for n in set(tensors) - said if not any(p.search(n) for p in idle))
  shapes = [
    f'{t.name} is {list(tensors.shape(t.name))}, wanted {list(t.shape)}'
    for t in wanted
    if t.name in tensors and tensors.shape(t.name) != t.shape
  ]
  wrong = [
    *_listed('missing', [f'{t.name} {list(t.shape)}' for t in wanted if t.name in missing]),
    *_listed('not known', [f'{name} {list(tensors.shape(name))}' for name in extra]),
    *_listed('of another shape', shapes),
  ]
  if wrong:
    raise errors.UserError(
      f'{where}: the tensors are not those of its config.json, a {published.architecture}.{"".join(wrong)}'
    )
  ties = 'the token table {}, and config.json ties them. Wanted tie_word_embeddings=false for weights of their own.'
  again = '{}, which it has to be again. Wanted the same numbers, or a file without it.'
  for name in sorted({*twice, *twins} & set(tensors) - names):
    table = next((t.name for t in wanted if t.slots[0].path == twins.get(name, 'embed/table')), None)
    if table is None or not _equal(tensors, name, table):
      raise errors.UserError(f'{where}: {name} is not {(ties if name in twice else again).format(table)}')
  _check_fixed(where, fixed, tensors)
  return list(wanted)


def _equal(tensors: Tensors, a: str, b: str) -> bool:
  """Whether two tables are the same, which is looked at a few rows at a time."""
  if tensors.shape(a) != tensors.shape(b):
    return False
  one, other = tensors[a], tensors[b]
  return all(np.array_equal(one[i : i + _ROWS], other[i : i + _ROWS]) for i in range(0, len(one), _ROWS))


def _check_fixed(where: str, fixed: Mapping[str, np.ndarray], tensors: Tensors) -> None:
  for name in sorted(set(fixed) & set(tensors)):
    held, said = tensors[name], fixed[name]
    if held.shape != said.shape or not np.allclose(held.astype(np.float32), said, atol=1e-2):
      raise errors.UserError(
        f'{where}: {name} {list(held.shape)} is not the fixed table {list(said.shape)} that config.json says. '
        'Wanted that, or none.'
      )


def _listed(what: str, lines: Sequence[str]) -> list[str]:
  if not lines:
    return []
  more = [f'... and {len(lines) - _MOST} more'] if len(lines) > _MOST else []
  return ['\n  ' + '\n    '.join([f'{what} ({len(lines)}):', *lines[:_MOST], *more])]
