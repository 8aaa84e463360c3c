"""A small tree of configs with two kinds of part, as a model and its run would be."""

from collections.abc import Iterator, Mapping
import dataclasses
from typing import Literal

from tfm.core.registry import Part, Table


@dataclasses.dataclass(frozen=True)
class Relative(Part):
  @classmethod
  def table(cls) -> Table:
    return RELATIVES


@dataclasses.dataclass(frozen=True)
class Rope(Relative):
  base: float = 10_000.0
  layout: Literal['halves', 'pairs'] = 'halves'


@dataclasses.dataclass(frozen=True)
class Alibi(Relative):
  pass


@dataclasses.dataclass(frozen=True)
class Given(Relative):
  table_path: str  # no default: it cannot be chosen by its name


@dataclasses.dataclass(frozen=True)
class Norm(Part):
  eps: float = 1e-5

  @classmethod
  def table(cls) -> Table:
    return NORMS


@dataclasses.dataclass(frozen=True)
class RMS(Norm):
  pass


RELATIVES = Table('relative position', none=Relative, rope=Rope, alibi=Alibi, given=Given)
NORMS = Table('norm', layer=Norm, rms=RMS, none=Relative)


@dataclasses.dataclass(frozen=True)
class Mixer:
  heads: int = 4
  kv_heads: int | None = None
  relative: Relative = Rope(5e5)
  norm: Norm | None = None
  inner: 'Mixer | None' = None

  def check(self) -> Iterator[str]:
    if self.heads % (self.kv_heads or self.heads):
      yield f'heads={self.heads} is not a multiple of kv_heads={self.kv_heads}. Expected a divisor.'


@dataclasses.dataclass(frozen=True)
class Block:
  mixer: Mixer = Mixer()
  norm: Norm = Norm()


@dataclasses.dataclass(frozen=True)
class Model:
  d_model: int = 64
  blocks: tuple[Block, ...] = (Block(), Block(Mixer(8, relative=Alibi())))
  norm: Norm = RMS()

  def check(self) -> Iterator[str]:
    if self.d_model < 1:
      yield f'd_model={self.d_model} is not positive. Expected 1 or more.'


@dataclasses.dataclass(frozen=True)
class Mesh:
  data: int = -1
  tensor: int = 1

  @classmethod
  def from_text(cls, text: str) -> 'Mesh':
    data, tensor = text.split('x')
    return cls(int(data), int(tensor))


@dataclasses.dataclass(frozen=True)
class Limits:
  low: float = 0.0
  high: float = 1.0


@dataclasses.dataclass(frozen=True)
class Run:
  model: Model = Model()
  mesh: Mesh = Mesh()
  files: tuple[str, ...] = ()
  betas: tuple[float, float] = (0.9, 0.95)
  steps: int = 100
  lr: float = 1e-3
  name: str = 'run'
  resume: bool = False
  rules: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
  schedule: float | Relative = 1.0
  limits: Limits | None = None
  mixed: int | str | None = None
