"""Norm before each branch (GPT-2, arXiv:2002.04745)."""

from collections.abc import Iterator
import dataclasses

from tfm.parts.wiring.base import Wiring


@dataclasses.dataclass(frozen=True)
class Pre(Wiring):
  """x + f(norm(x)) for every branch f; those named in `bare` read x as it is (ModernBERT's first mixer)."""

  bare: tuple[str, ...] = ()

  def check(self) -> Iterator[str]:
    if odd := sorted({*self.bare} - {'mixer', 'cross', 'ffn'}):
      yield f'bare names no branch {", ".join(odd)}. Wanted some of mixer, cross, ffn.'

  def steps(self, branches, norm):
    read = lambda x, name: x if name in self.bare else norm(f'{name}_norm')(x)
    return [lambda x, name=name, f=f: f(read(x, name), None, x) for name, f in branches.items()]
