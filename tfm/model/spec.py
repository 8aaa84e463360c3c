"""What a model is: a frozen value made of parts. Next: `parts/mixer/attention.py`, then
`model/transformer.py`.
"""

from collections.abc import Iterator, Mapping
import dataclasses
from typing import Any, ClassVar

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
from tfm.parts.unit.base import Unit
from tfm.parts.unit.blocks import Blocks

MAIN = ''  # the name of the model's own tower, beside those in `towers`


@dataclasses.dataclass(frozen=True)
class Block:
  """One layer: a mixer, cross-attention to another tower, and a feed-forward. Any of the three may
  be none.

  Attributes: mixer: how tokens of the sequence exchange information. ffn: what is computed for each
    token by itself. norm, residual_layout: the normalisation, and where it stands (pre-norm,
    post-norm, ...). cross: attention to the output of another tower. dropout: rate for the output
    of every branch in training. residual_scale: how the output of a branch becomes an update of the
    residual stream (a factor, a gate). drop_path: probability that the last block skips a branch of
    an example in training; proportionally less in earlier
      blocks (stochastic depth, arXiv:1603.09382).
    second_ffn: a feed-forward after `ffn`, a branch of its own (X-MOD's language adapters,
    arXiv:2205.06266).
    extra_branch: an extra branch without a cache. It reads what enters the block, and its output is
      added as it is, last (DeBERTa v2's convolution, arXiv:2006.03654).
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
  second_ffn: FFN | None = None

  #: Fields that earlier versions stored under other names.
  former: ClassVar = {
    'wiring': 'residual_layout',
    'gain': 'residual_scale',
    'aside': 'extra_branch',
  }

  @property
  def mixers(self) -> tuple[Mixer, ...]:
    """The branches through which tokens of the sequence exchange information."""
    return tuple(m for m in (self.mixer, self.extra_branch) if m is not None)

  @property
  def ffns(self) -> dict[str, FFN]:
    """The feed-forwards, by the names of their fields."""
    both = {'ffn': self.ffn, 'second_ffn': self.second_ffn}
    return {name: part for name, part in both.items() if part is not None}

  @property
  def causal(self) -> bool:
    """True if no output depends on a later token."""
    return all(m.causal for m in self.mixers) and all(f.causal for f in self.ffns.values())

  def check(self) -> Iterator[str]:
    for name in ('dropout', 'drop_path'):
      if not 0 <= (share := getattr(self, name)) < 1:
        yield f'{name}={share} is not a share. Expected at least 0 and less than 1.'
    if self.mixer is None and self.ffn is None and self.cross is None:
      yield 'mixer, ffn and cross are all none, so the block computes nothing. Expected one of them.'
    if self.extra_branch is not None and self.residual_layout.final_norm:
      yield 'extra_branch is added and normalised after the other branches. Expected residual_layout=post, or extra_branch=none.'


@dataclasses.dataclass(frozen=True)
class Segment:
  """`pattern`, repeated `repeats` times: 5 local layers and 1 global one, dense layers before
  sparse ones.

  Attributes: pattern: the blocks of one repeat. repeats: how many there are; they are compiled as
    one scan. shared: the repeats have the same parameters (ALBERT, arXiv:1909.11942), which then
    have no layer axis. unit: what one repeat computes of its blocks. resample: changes the length
    of the sequence on entry. d_model: width from here on, if it changes on entry (None: as before);
    needs `resample`.
  """

  pattern: tuple[Block, ...] = (Block(),)
  repeats: int = 1
  shared: bool = False
  unit: Unit = Blocks()
  resample: Resample | None = None
  d_model: int | None = None

  def check(self) -> Iterator[str]:
    if self.repeats < 1 or not self.pattern:
      yield f'repeats={self.repeats} of {len(self.pattern)} blocks make no layer. Expected at least one of each.'
    if self.d_model is not None and self.resample is None:
      yield f'd_model={self.d_model} changes the width without a projection. Expected resample=..., or d_model=none.'


@dataclasses.dataclass(frozen=True)
class Tower:
  """An input layer, layers and heads. It may read other towers of the model by name.

  Attributes: embed: how inputs become a sequence. None (of a tower beside the model's own) shares
    the model's embedding. d_model: width of the first segment. None (of a tower beside the model's
    own) is the model's. segments: the layers; none at all for a tower that others only read.
    absolute: positions added to the embeddings. norm: final norm, where the layers leave the
    residual stream unnormalised (pre-norm, not post-norm). None: none. shared_relative: one
    relative position, with its parameters, for all layers (T5); `mixer.relative` is one per layer.
    residual: what is passed from block to block beside the residual stream. heads: what is computed
    from the last hidden state, by name.
  """

  embed: Embed | None = None
  d_model: int | None = None
  segments: tuple[Segment, ...] = (Segment(),)
  absolute: Absolute = Absolute()
  norm: Norm | None = RMSNorm()
  shared_relative: Relative = Relative()
  residual: Residual = Residual()
  heads: Mapping[str, Head] = FrozenMap()

  def __post_init__(self):
    object.__setattr__(self, 'heads', FrozenMap(self.heads))

  @property
  def vocab(self) -> int:
    """Number of token ids that it reads, 0 if it reads no tokens."""
    return 0 if self.embed is None else self.embed.vocab or 0

  @property
  def shares(self) -> bool:
    """Whether it uses the token table of the model's own tower."""
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
    """Names of the towers whose outputs it reads."""
    crosses = {b.cross.tower for b in blocks(self) if b.cross is not None}
    return frozenset(crosses.union(() if self.embed is None else self.embed.towers))

  @property
  def max_positions(self) -> int | None:
    """Length of the longest sequence that its positions can number, None for any length."""
    limits = [self.absolute.max_positions, self.shared_relative.max_positions]
    limits += [m.max_positions for b in blocks(self) for m in b.mixers]
    return min((n for n in limits if n is not None), default=None)

  def with_heads(self, **heads: Any) -> Any:
    """Return a copy with these heads added or replaced; None removes one."""
    return dataclasses.replace(self, heads={**self.heads, **heads})


@dataclasses.dataclass(frozen=True)
class Model(Tower):
  """A tower, and the towers that it reads or that stand beside it.

  A decoder, an encoder or a prefix LM by its masks; an encoder-decoder if there is a tower named
  'encoder'. Contrastive models (CLIP) have a tower of images that nobody reads, and heads that
  compare the two.

  Attributes:
    towers: further towers by name; `params[name]` has their parameters.
    init: how weights start, in every tower.
    mtp: layers that predict the tokens after the next one.
    adapter: added to projections that were trained before (LoRA).
  """

  embed: Embed = Tokens()
  d_model: int = 512
  heads: Mapping[str, Head] = FrozenMap({'lm': Lm()})
  init: Init = Normal()
  towers: Mapping[str, Tower] = FrozenMap()
  mtp: MTP | None = None
  adapter: Adapter = Adapter()

  def __post_init__(self):
    super().__post_init__()
    object.__setattr__(self, 'towers', FrozenMap(self.towers))

  #: Reads the fields that earlier versions stored in checkpoints.
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
    from tfm.model import outputs  # here, as it looks at whole models

    return frozenset(outputs.sources(self))

  @property
  def ahead(self) -> bool:
    """True if an output may depend on later tokens that are in no prefix."""
    later = lambda m: not (m.causal or 'prefix' in m.reads)
    shown = lambda b: any(map(later, b.mixers)) or not all(f.causal for f in b.ffns.values())
    return not self.embed.causal or resampled(self) or any(map(shown, blocks(self)))

  @property
  def apart(self) -> bool:
    """True if an example does not depend on the others of its batch."""
    return all(
      f.apart for t in (self, *self.towers.values()) for b in blocks(t) for f in b.ffns.values()
    )

  @property
  def masked(self) -> bool:
    """True if attention masks alone decide which tokens an output depends on, so that they can hide
    an order.
    """
    alone = lambda b: all(m.masked for m in b.mixers) and all(f.apart for f in b.ffns.values())
    return not self.towers and all(map(alone, blocks(self)))

  @property
  def reads_prefix(self) -> bool:
    """True if some mask reads the input `prefix_mask`."""
    return 'prefix' in reads(self)

  def tower(self, name: str) -> Tower:
    """Return the tower of a name (`MAIN` is the model's own), with what it shares with the model
    filled in.
    """
    if name == MAIN:
      return self
    own = self.towers[name]
    embed = self.embed if own.embed is None else own.embed.resolved(self.embed)
    return dataclasses.replace(own, embed=embed, d_model=own.d_model or self.d_model)

  def with_towers(self, **towers: Any) -> Any:
    """Return a copy with these towers added or replaced; None removes one."""
    return dataclasses.replace(self, towers={**self.towers, **towers})

  def check(self) -> Iterator[str]:
    # Imported here, as the checks look at whole models.
    from tfm.model import check

    yield from check.violations(self)


def reads(tower: Tower) -> frozenset[str]:
  """Return the extras of `TokenInfo` that the layers of a tower use."""
  of_mixers = [m.reads for b in blocks(tower) for m in b.mixers]
  of_ffns = [f.reads for b in blocks(tower) for f in b.ffns.values()]
  return frozenset().union(tower.shared_relative.reads, *of_mixers, *of_ffns)


def blocks(tower: Tower) -> list[Block]:
  """Return every distinct block of a tower, once (repeats are not counted)."""
  return [b for s in tower.segments for b in s.pattern]


def resampled(tower: Tower) -> bool:
  """Return whether some segment changes the length of the sequence."""
  return any(segment.resample is not None for segment in tower.segments)


def placed(tower: Tower) -> list[tuple[str, Segment, Block, int]]:
  """Return (path, segment, block, width) of every distinct block of a tower whose `d_model` is
  known.
  """
  found, width = [], tower.d_model or 0
  for i, segment in enumerate(tower.segments):
    width = segment.d_model or width
    found += [
      (f'segments.{i}.pattern.{j}', segment, block, width)
      for j, block in enumerate(segment.pattern)
    ]
  return found


def last_width(tower: Tower) -> int:
  """Return the width of the last segment."""
  return next((s.d_model for s in reversed(tower.segments) if s.d_model), tower.d_model or 0)


def depth(tower: Tower) -> int:
  """Return the number of layers."""
  return sum(len(s.pattern) * s.repeats for s in tower.segments)


def shared_heads(tower: Tower) -> int:
  """Return the number of attention heads that a shared relative position serves."""
  return next((n for b in blocks(tower) if (n := getattr(b.mixer, 'heads', 0))), 0)


def shared_head_dim(tower: Tower) -> int:
  """Return the size of a head as a shared relative position sees it."""
  return next((n for *_, b, d in placed(tower) for m in b.mixers if (n := m.told_dim(d))), 0)


def shared_value_dim(tower: Tower) -> int:
  """Return the size of a head's values, to which a shared relative position may add."""
  return next((n for *_, b, d in placed(tower) for m in b.mixers if (n := m.value_dim(d))), 0)


def common(tower: Tower) -> Any:
  """Return what the mixers of a tower share, or None."""
  return next((c for b in blocks(tower) for m in b.mixers if (c := m.common) is not None), None)
