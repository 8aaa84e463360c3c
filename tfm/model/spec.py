"""The spec of a model: a frozen dataclass made of parts.

Read next: `parts/mixer/attention.py`, then `model/transformer.py`.
"""

from collections.abc import Iterator, Mapping
import dataclasses
from typing import Any, ClassVar, Protocol, Self

from tfm.core.frozen import FrozenMap
from tfm.model import upgrade
from tfm.parts.absolute.base import Absolute
from tfm.parts.adapter.base import Adapter
from tfm.parts.cross.base import Cross
from tfm.parts.embed.base import Embed
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.base import FFN
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.base import Head
from tfm.parts.head.lm import Lm
from tfm.parts.init.base import Init
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.base import Mixer
from tfm.parts.mtp.base import MTP
from tfm.parts.norm.base import Norm
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.base import Relative
from tfm.parts.resample.base import Resample
from tfm.parts.residual.base import Residual
from tfm.parts.residual_layout.base import ResidualLayout
from tfm.parts.residual_layout.pre import Pre
from tfm.parts.residual_scale.base import ResidualScale
from tfm.parts.rounding.base import Rounding
from tfm.parts.unit.base import Unit
from tfm.parts.unit.blocks import Blocks

#: The name of the model's own tower; the others are in `towers`.
MAIN = ''


@dataclasses.dataclass(frozen=True)
class Block:
  """One layer: a mixer, cross-attention, and a feed-forward network, each of which may be none.

  Attributes:
    mixer: How tokens of the sequence exchange information (attention, LSTM, ...).
    ffn: The feed-forward network, applied to each token separately.
    norm: The normalisation of branches.
    residual_layout: Where the normalisation is applied (pre-norm, post-norm, sandwich, parallel).
    cross: Attention to the output of another tower.
    dropout: Dropout rate for the output of every branch.
    residual_scale: How the output of a branch is scaled before it is added (a factor, a gate).
    drop_path: The probability that the last block skips a branch of an example in training,
      proportionally less in earlier blocks (stochastic depth, arXiv:1603.09382).
    second_ffn: A feed-forward branch after `ffn` (language adapters of X-MOD, arXiv:2205.06266).
    extra_branch: A branch without a cache that reads the input of the block. Its output is added
      last, without normalisation (the convolution of DeBERTa v2, arXiv:2006.03654).
    rounding: How projections round their inputs and weights in every forward pass (BitNet).
  """

  mixer: Mixer | None = Attention()
  ffn: FFN | None = Glu()
  norm: Norm = RMSNorm()
  residual_layout: ResidualLayout = Pre()
  cross: Cross | None = None
  dropout: float = 0.0
  residual_scale: ResidualScale = ResidualScale()
  drop_path: float = 0.0
  extra_branch: Mixer | None = None
  rounding: Rounding = Rounding()
  second_ffn: FFN | None = None

  #: Former names of fields, in checkpoints of earlier versions.
  former: ClassVar = {
    'wiring': 'residual_layout',
    'gain': 'residual_scale',
    'aside': 'extra_branch',
  }

  @property
  def mixers(self) -> tuple[Mixer, ...]:
    """The branches in which tokens of the sequence exchange information."""
    return tuple(m for m in (self.mixer, self.extra_branch) if m is not None)

  @property
  def ffns(self) -> dict[str, FFN]:
    """The feed-forwards, by the names of their fields."""
    both = {'ffn': self.ffn, 'second_ffn': self.second_ffn}
    return {name: part for name, part in both.items() if part is not None}

  @property
  def causal(self) -> bool:
    """True if no output depends on a later token."""
    parts: list[Mixer | FFN] = [*self.mixers, *self.ffns.values()]
    return all(part.causal for part in parts)

  def check(self) -> Iterator[str]:
    for name in ('dropout', 'drop_path'):
      if not 0 <= (share := getattr(self, name)) < 1:
        yield f'{name}={share} is not a probability. Expected at least 0 and less than 1.'
    if self.mixer is None and self.ffn is None and self.cross is None:
      yield 'mixer, ffn and cross are all none, so the block is empty. Expected at least one.'
    if self.extra_branch is not None and self.residual_layout.final_norm:
      yield (
        'extra_branch needs a layout that normalises after the other branches. '
        'Expected residual_layout=post, or extra_branch=none.'
      )


@dataclasses.dataclass(frozen=True)
class Segment:
  """A pattern of blocks, repeated: 5 local layers and 1 global one, for example.

  Attributes:
    pattern: The blocks of one repeat.
    repeats: The number of repeats, which are compiled as one scan.
    shared: Whether the repeats share their parameters (ALBERT, arXiv:1909.11942), which then have
      no layer axis.
    unit: How one repeat applies its blocks.
    resample: A change of the sequence length on entry.
    d_model: The width from here on, if it changes on entry; needs `resample`. None: unchanged.
  """

  pattern: tuple[Block, ...] = (Block(),)
  repeats: int = 1
  shared: bool = False
  unit: Unit = Blocks()
  resample: Resample | None = None
  d_model: int | None = None

  def check(self) -> Iterator[str]:
    if self.repeats < 1 or not self.pattern:
      yield (
        f'repeats={self.repeats} of {len(self.pattern)} blocks give no layer. '
        'Expected at least one block and one repeat.'
      )
    if self.d_model is not None and self.resample is None:
      yield (
        f'd_model={self.d_model} changes the width without a projection. '
        'Expected resample=..., or d_model=none.'
      )


@dataclasses.dataclass(frozen=True)
class Tower:
  """An input layer, layers and heads.

  A tower may read other towers of the model by name.

  Attributes:
    embed: The input layer. None shares the model's, for a tower in `Model.towers`.
    d_model: The width of the first segment. None is the model's, for a tower in `Model.towers`.
    segments: The layers. May be empty.
    absolute: Absolute positions, added to the embeddings.
    norm: The final norm, for layouts that leave the residual stream unnormalised (pre-norm).
    shared_relative: A relative position with one set of parameters for all layers (T5).
      `mixer.relative` has one set per layer.
    residual: The residual connection between blocks.
    heads: The heads on the last hidden state, by name.
  """

  embed: Embed | None = None
  d_model: int | None = None
  segments: tuple[Segment, ...] = (Segment(),)
  absolute: Absolute = Absolute()
  norm: Norm | None = RMSNorm()
  shared_relative: Relative = Relative()
  residual: Residual = Residual()
  heads: Mapping[str, Head] = FrozenMap()

  def __post_init__(self) -> None:
    object.__setattr__(self, 'heads', FrozenMap(self.heads))

  @property
  def vocab(self) -> int:
    """The number of token ids of the input layer, 0 without tokens."""
    return 0 if self.embed is None else self.embed.vocab or 0

  @property
  def shares(self) -> bool:
    """Whether the tower uses the token table of the model's own tower."""
    return self.embed is None or self.embed.shares

  @property
  def lm(self) -> Any:
    """The head with logits over the vocabulary, or None."""
    return self.heads.get('lm')

  @property
  def classifier(self) -> Any:
    """The head `classify`, or None."""
    return self.heads.get('classify')

  @property
  def causal(self) -> bool:
    """True if no output depends on a later token of the tower itself."""
    shown = self.embed is None or self.embed.causal
    return shown and not resampled(self) and all(b.causal for b in blocks(self))

  @property
  def reads_towers(self) -> frozenset[str]:
    """The names of the towers that this one reads."""
    crosses = {b.cross.tower for b in blocks(self) if b.cross is not None}
    return frozenset(crosses.union(() if self.embed is None else self.embed.towers))

  @property
  def max_positions(self) -> int | None:
    """The longest sequence that the positions support, None for any length."""
    limits = [self.absolute.max_positions, self.shared_relative.max_positions]
    limits += [m.max_positions for b in blocks(self) for m in b.mixers]
    return min((n for n in limits if n is not None), default=None)

  def with_heads(self, **heads: Any) -> Self:
    """Return a copy with these heads added or replaced; None removes one."""
    return dataclasses.replace(self, heads={**self.heads, **heads})


@dataclasses.dataclass(frozen=True)
class Model(Tower):
  """A model: its own tower, and further towers.

  The masks make it a decoder, an encoder or a prefix LM. With a tower named 'encoder' it is an
  encoder-decoder. Contrastive models (CLIP) have a separate image tower, and heads that compare
  both.

  Attributes:
    towers: Further towers by name. `params[name]` has their parameters.
    init: The weight initialisation of all towers.
    mtp: Multi-token prediction layers.
    adapter: Trainable updates of pretrained projections (LoRA, arXiv:2106.09685).
  """

  embed: Embed = Tokens()
  d_model: int = 512
  heads: Mapping[str, Head] = FrozenMap({'lm': Lm()})
  init: Init = Normal()
  towers: Mapping[str, Tower] = FrozenMap()
  mtp: MTP | None = None
  adapter: Adapter = Adapter()

  def __post_init__(self) -> None:
    super().__post_init__()
    object.__setattr__(self, 'towers', FrozenMap(self.towers))

  #: Converts the fields of earlier versions, in checkpoints.
  upgrade = staticmethod(upgrade.model)

  @property
  def encoder(self) -> Any:
    """The tower 'encoder', or None."""
    return self.towers.get('encoder')

  @property
  def d_out(self) -> int:
    """The width of `last_hidden_state`."""
    return self.embed.d_out or last_width(self)

  @property
  def returns(self) -> frozenset[str]:
    """The names of the outputs of all heads."""
    from tfm.model import outputs  # imports this module

    return frozenset(outputs.output_heads(self))

  @property
  def ahead(self) -> bool:
    """True if an output may depend on later tokens outside the prefix."""
    if resampled(self) or not self.embed.causal:
      return True
    for block in blocks(self):
      if any(not (m.causal or 'prefix' in m.reads) for m in block.mixers):
        return True
      if not all(ffn.causal for ffn in block.ffns.values()):
        return True
    return False

  @property
  def apart(self) -> bool:
    """True if the outputs of an example do not depend on the rest of its batch."""
    towers = (self, *self.towers.values())
    ffns = [ffn for tower in towers for b in blocks(tower) for ffn in b.ffns.values()]
    return all(ffn.per_token for ffn in ffns)

  @property
  def masked(self) -> bool:
    """True if the attention masks alone determine which tokens an output depends on.

    Permutation language modelling needs this.
    """
    if self.towers:
      return False
    for block in blocks(self):
      if not all(m.masked for m in block.mixers):
        return False
      if not all(ffn.per_token for ffn in block.ffns.values()):
        return False
    return True

  @property
  def reads_prefix(self) -> bool:
    """True if some mask reads the input `prefix_mask`."""
    return 'prefix' in token_extras(self)

  def tower(self, name: str) -> Tower:
    """Return a tower by name (`MAIN`: the model's own), with shared fields filled in."""
    if name == MAIN:
      return self
    own = self.towers[name]
    embed = self.embed if own.embed is None else own.embed.resolved(self.embed)
    return dataclasses.replace(own, embed=embed, d_model=own.d_model or self.d_model)

  def with_towers(self, **towers: Any) -> Self:
    """Return a copy with these towers added or replaced; None removes one."""
    return dataclasses.replace(self, towers={**self.towers, **towers})

  def check(self) -> Iterator[str]:
    from tfm.model import check  # imports this module

    yield from check.violations(self)


def token_extras(tower: Tower) -> frozenset[str]:
  """Return the extras of `TokenInfo` that the layers of a tower read."""
  by_mixers = [m.reads for b in blocks(tower) for m in b.mixers]
  by_ffns = [ffn.reads for b in blocks(tower) for ffn in b.ffns.values()]
  return frozenset().union(tower.shared_relative.reads, *by_mixers, *by_ffns)


def blocks(tower: Tower) -> list[Block]:
  """Return the distinct blocks of a tower, without repeats."""
  return [b for s in tower.segments for b in s.pattern]


def resampled(tower: Tower) -> bool:
  """Return whether some segment changes the length of the sequence."""
  return any(segment.resample is not None for segment in tower.segments)


def blocks_with_width(tower: Tower) -> list[tuple[str, Segment, Block, int]]:
  """Return (path, segment, block, width) of the distinct blocks of a complete tower."""
  found, width = [], tower.d_model or 0
  for i, segment in enumerate(tower.segments):
    width = segment.d_model or width
    for j, block in enumerate(segment.pattern):
      found.append((f'segments.{i}.pattern.{j}', segment, block, width))
  return found


def last_width(tower: Tower) -> int:
  """Return the width of the last segment."""
  return next((s.d_model for s in reversed(tower.segments) if s.d_model), tower.d_model or 0)


class HasSegments(Protocol):
  """A tower, or another object with segments."""

  @property
  def segments(self) -> tuple[Segment, ...]: ...


def depth(tower: HasSegments) -> int:
  """Return the number of layers."""
  return sum(len(s.pattern) * s.repeats for s in tower.segments)


def shared_heads(tower: Tower) -> int:
  """Return the number of attention heads that a shared relative position serves."""
  return next((n for b in blocks(tower) if (n := getattr(b.mixer, 'heads', 0))), 0)


def shared_head_dim(tower: Tower) -> int:
  """Return the head size of queries and keys for a shared relative position."""
  return next(
    (n for *_, b, d in blocks_with_width(tower) for m in b.mixers if (n := m.relative_dim(d))), 0
  )


def shared_value_dim(tower: Tower) -> int:
  """Return the head size of values for a shared relative position."""
  return next(
    (n for *_, b, d in blocks_with_width(tower) for m in b.mixers if (n := m.value_dim(d))), 0
  )


def shared_module(tower: Tower) -> Any:
  """Return the part that the mixers of a tower share, or None."""
  return next((c for b in blocks(tower) for m in b.mixers if (c := m.common) is not None), None)
