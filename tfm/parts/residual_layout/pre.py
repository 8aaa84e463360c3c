"""Norm before each branch."""

from collections.abc import Iterator
import dataclasses
from typing import ClassVar

from tfm.parts.residual_layout.base import ResidualLayout


@dataclasses.dataclass(frozen=True)
class Pre(ResidualLayout):
  """Pre-norm, x + f(norm(x)) for each branch (GPT-2, arXiv:2002.04745).

  Attributes:
    unnormalised: names of branches without a norm, x + f(x) (ModernBERT's first mixer).
  """

  unnormalised: tuple[str, ...] = ()

  former: ClassVar[dict[str, str]] = {'bare': 'unnormalised'}

  def check(self) -> Iterator[str]:
    if unknown := sorted({*self.unnormalised} - {'mixer', 'cross', 'ffn'}):
      yield (
        f'unnormalised: unknown branch {", ".join(unknown)}. Expected some of mixer, cross, ffn.'
      )

  def steps(self, branches, norm):
    normed = lambda x, name: x if name in self.unnormalised else norm(f'{name}_norm')(x)
    return [lambda x, name=name, f=f: f(normed(x, name), None, x) for name, f in branches.items()]
