"""Whether the tensors of a checkpoint are those that a family's plan wants, and the sentence that lists what is not."""

from collections.abc import Mapping, Sequence
import dataclasses
import re

import numpy as np

from tfm.core import errors
from tfm.hub.tensors import Tensors
from tfm.zoo.weights import Published, Tensor, plan

_MOST = 12


def match(where: str, published: Published, tensors: Tensors) -> list[Tensor]:
  """The tensors that hold the parameters of a published model, under the names that the checkpoint has for them.

  Raises: UserError that lists every tensor that is missing, that nothing knows, or that has another shape.
  """
  family = published.family
  wanted = plan(family, published.spec, published.ending)
  # A body alone has no prefix before its names; some checkpoints say otherwise than their class.
  theirs = {name.removeprefix(family.prefix): name for name in tensors}
  found = [theirs.get(t.name.removeprefix(family.prefix), t.name) for t in wanted]
  wanted = [dataclasses.replace(t, name=name) for t, name in zip(wanted, found, strict=True)]
  names = {t.name for t in wanted}
  missing = sorted(names - set(tensors))
  twice = {name for tied in family.tied for name in (tied, tied.removeprefix(family.prefix))}
  idle = [re.compile(pattern) for pattern in family.ignored]
  fixed = family.fixed_of(published.spec, published.ending)
  extra = sorted(n for n in set(tensors) - names - twice - set(fixed) if not any(p.search(n) for p in idle))
  shapes = [
    f'{t.name} is {list(tensors.shape(t.name))}, wanted {list(t.shape)}'
    for t in wanted
    if t.name in tensors and tensors.shape(t.name) != t.shape
  ]
  said = [
    *_listed('missing', [f'{t.name} {list(t.shape)}' for t in wanted if t.name in missing]),
    *_listed('not known', [f'{name} {list(tensors.shape(name))}' for name in extra]),
    *_listed('of another shape', shapes),
  ]
  if said:
    raise errors.UserError(
      f'{where}: the tensors are not those of its config.json, a {published.architecture}.{"".join(said)}'
    )
  _check_tied(where, twice & set(tensors) - names, wanted, tensors)
  _check_fixed(where, fixed, tensors)
  return list(wanted)


def _check_tied(where: str, twice: set[str], wanted: Sequence[Tensor], tensors: Tensors) -> None:
  table = next((t.name for t in wanted if t.slots[0].path == 'embed/table'), None)
  for name in sorted(twice):
    same = table is not None and tensors.shape(name) == tensors.shape(table)
    if table is None or not same or not np.array_equal(tensors[name], tensors[table]):
      raise errors.UserError(
        f'{where}: {name} is not the token table {table}, and config.json ties them. Wanted tie_word_embeddings=false '
        'for weights of their own.'
      )


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
