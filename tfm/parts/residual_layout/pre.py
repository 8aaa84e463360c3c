"""Norm before each branch (GPT-2, arXiv:2002.04745)."""

from collections.abc import Iterator
import dataclasses
from typing import ClassVar

from tfm.parts.residual_layout.base import ResidualLayout


@dataclasses.dataclass(frozen=True)
class Pre(ResidualLayout):
  """x + f(norm(x)) for every branch f; those named in `unnormalised` read x as it is (ModernBERT's
  first mixer).
  """

  unnormalised: tuple[str, ...] = ()

  former: ClassVar[dict[str, str]] = {'bare': 'unnormalised'}

  def check(self) -> Iterator[str]:
    if odd := sorted({*self.unnormalised} - {'mixer', 'cross', 'ffn'}):
      yield f'unnormalised names no branch {", ".join(odd)}. Expected some of mixer, cross, ffn.'

  def steps(self, branches, norm):
    read = lambda x, name: x if name in self.unnormalised else norm(f'{name}_norm')(x)
    return [lambda x, name=name, f=f: f(read(x, name), None, x) for name, f in branches.items()]
