"""What a model is: a frozen value made of parts. Next: `parts/mixer/attention.py`, then `model/transformer.py`."""

from collections.abc import Iterator
import dataclasses
from typing import Any, Literal

from tfm.parts.absolute.base import Absolute
from tfm.parts.act.base import Act
from tfm.parts.act.gelu import Gelu
from tfm.parts.adapter.base import Adapter
from tfm.parts.cross.base import Cross
from tfm.parts.ffn.base import FFN
from tfm.parts.ffn.glu import Glu
from tfm.parts.gain.base import Gain
from tfm.parts.init.base import Init
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.base import Mixer
from tfm.parts.mtp.base import MTP
from tfm.parts.norm.base import Norm
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.base import Relative
from tfm.parts.residual.base import Residual
from tfm.parts.wiring.base import Wiring
from tfm.parts.wiring.pre import Pre


@dataclasses.dataclass(frozen=True)
class Block:
  """One layer: a mixer, in a decoder of an encoder-decoder a cross mixer, and a feed-forward.

  A branch is multiplied by its `gain`, and in training has `dropout`, before it joins the residual stream. `drop_path`
  is the chance, in training, that a row goes past a branch of the last block, in proportion less in earlier ones
  (stochastic depth, arXiv:1603.09382). `aside` is a mixer without a cache that reads what enters the block and joins
  as its last branch, as it is (DeBERTa v2's convolution, arXiv:2006.03654).
  """

  mixer: Mixer = Attention()
  ffn: FFN = Glu()
  norm: Norm = RMSNorm()
  wiring: Wiring = Pre()
  cross: Cross | None = None
  dropout: float = 0.0
  gain: Gain = Gain()
  drop_path: float = 0.0
  aside: Mixer | None = None

  @property
  def mixers(self) -> tuple[Mixer, ...]:
    """Those of its branches through which the tokens of a stack exchange what they know."""
    return (self.mixer,) if self.aside is None else (self.mixer, self.aside)

  def check(self) -> Iterator[str]:
    for name in ('dropout', 'drop_path'):
      if not 0 <= (share := getattr(self, name)) < 1:
        yield f'{name}={share} is not a share. Wanted at least 0 and less than 1.'
    if self.aside is not None and self.wiring.final_norm:
      yield 'aside is joined and normed behind the other branches. Wanted wiring=post, or aside=none.'


@dataclasses.dataclass(frozen=True)
class Segment:
  """`pattern`, repeated: 5 local blocks and 1 global one, dense layers before sparse ones. The repeats are one scan.

  `shared` repeats have the same parameters (ALBERT, arXiv:1909.11942; Universal Transformer), which then have no layer
  axis.
  """

  pattern: tuple[Block, ...] = (Block(),)
  repeats: int = 1
  shared: bool = False

  def check(self) -> Iterator[str]:
    if self.repeats < 1 or not self.pattern:
      yield f'repeats={self.repeats} of {len(self.pattern)} blocks is no layer. Wanted at least one of each.'


@dataclasses.dataclass(frozen=True)
class Embed:
  """E[token] scale D^power + E_type[type], normed and dropped out after positions are added.

  `rows` normalises each row of the table wherever it is used (FixNorm). `types` is the number of token types (BERT 2).
  With `dim` tables, positions and norm are of that width, from where a projection leads to D (ALBERT's factors of E).
  With `back` only the token table is: its rows are projected at once, and what leaves the stack is projected back to
  that width, both without biases (OPT 350M).
  `query` is one more vector, for tokens that are asked about: what `target_positions` wants (see `tfm.model.targets`).
  """

  scale: float = 1.0
  power: float = 0.0
  types: int = 0
  rows: Norm | None = None
  norm: Norm | None = None
  dropout: float = 0.0
  dim: int | None = None
  back: bool = False
  query: bool = False

  def check(self) -> Iterator[str]:
    if self.back and self.dim is None:
      yield 'back leads to the width of the table, and it has none of its own. Wanted dim=..., or back=false.'
    if self.dim is not None and self.dim < 1:
      yield f'dim={self.dim} is no width. Wanted at least 1, or none for that of the model.'


@dataclasses.dataclass(frozen=True)
class Transform:
  """norm(act(x W + b)) before the head (BERT's masked-LM head), as wide as the token table."""

  act: Act = Gelu()
  norm: Norm = LayerNorm(1e-12)
  bias: bool = True


@dataclasses.dataclass(frozen=True)
class Head:
  """cap(scale D^power (x U + b)), U the embedding's table if `tied`."""

  tied: bool = True
  bias: bool = False
  scale: float = 1.0
  power: float = 0.0
  cap: float | None = None
  transform: Transform | None = None


@dataclasses.dataclass(frozen=True)
class Classifier:
  """norm(act(h W + b)) U + c, where h is one vector of a row (the first, the last real token's, their mean) or each
  token's.

  `hidden` names the activation between (BERT's pooler is tanh), None goes to the labels at once; `hidden_bias` is b,
  `norm` None is none (ModernBERT has one). `bias` is that of the labels. With `labels` 0 there are none: the value
  before them is what comes out.
  """

  labels: int = 2
  pick: Literal['first', 'last', 'mean', 'each'] = 'first'
  hidden: Act | None = None
  bias: bool = True
  dropout: float = 0.0
  hidden_bias: bool = True
  norm: Norm | None = None

  def check(self) -> Iterator[str]:
    if self.norm is not None and self.hidden is None:
      yield 'norm stands behind the activation, and there is none. Wanted hidden=..., or norm=none.'
    if self.labels < 0 or (not self.labels and self.hidden is None):
      yield f'labels={self.labels} and hidden={self.hidden} come to nothing. Wanted labels, or an activation.'


@dataclasses.dataclass(frozen=True)
class Encoder:
  """The stack that reads the source of an encoder-decoder. It shares the decoder's width unless it has a `d_model`.

  It shares the decoder's token table too unless `vocab`, the number of its own tokens, is given, and all else of the
  decoder's `embed` unless it has one of its own (BART, whose stacks normalise their embeddings apart).
  """

  segments: tuple[Segment, ...] = (Segment(),)
  absolute: Absolute = Absolute()
  norm: Norm = RMSNorm()
  shared_relative: Relative = Relative()
  residual: Residual = Residual()
  vocab: int | None = None
  embed: Embed | None = None
  d_model: int | None = None

  def check(self) -> Iterator[str]:
    yield from _shared_heads(self)
    if self.d_model is not None and self.d_model < 1:
      yield f'd_model={self.d_model} is no width. Wanted at least 1, or none for that of the decoder.'
    if self.d_model is not None and self.vocab is None:
      yield "the encoder has a d_model of its own, and the decoder's token table. Wanted vocab=..., or d_model=none."
    if self.vocab is not None and self.vocab < 1:
      yield f'vocab={self.vocab} is no size. Wanted at least 1, or none for the table of the decoder.'
    if any(b.cross is not None for b in blocks(self)):
      yield 'a block of an encoder has a cross mixer, but nothing to read. Wanted cross=none.'


@dataclasses.dataclass(frozen=True)
class Model:
  """A decoder, an encoder or a prefix LM by its masks; an encoder-decoder if `encoder` is given.

  `norm` ends the stack where its wiring leaves the residual stream open (pre, parallel, sandwich; not post).
  `shared_relative` is one relative position, with its parameters, for every layer (T5); `mixer.relative` is
  a layer's own. `mtp` adds layers that predict the tokens after the next one. `residual` is what travels from block to
  block. Without a `head` there are no logits over the vocabulary; `classifier` says something of a row, or of a token.
  `adapter` is added to projections that were trained before.
  """

  vocab: int = 32_000
  d_model: int = 512
  segments: tuple[Segment, ...] = (Segment(),)
  absolute: Absolute = Absolute()
  norm: Norm = RMSNorm()
  shared_relative: Relative = Relative()
  embed: Embed = Embed()
  head: Head | None = Head()
  init: Init = Normal()
  encoder: Encoder | None = None
  mtp: MTP | None = None
  residual: Residual = Residual()
  classifier: Classifier | None = None
  adapter: Adapter = Adapter()

  @property
  def source(self) -> 'Model':
    """The model as it embeds the tokens of an encoder's source."""
    own = self.encoder
    if own is None:
      return self
    width = own.d_model or self.d_model
    return dataclasses.replace(self, vocab=own.vocab or self.vocab, embed=own.embed or self.embed, d_model=width)

  @property
  def d_out(self) -> int:
    """The width of `last_hidden_state`."""
    return self.embed.dim or self.d_model if self.embed.back else self.d_model

  @property
  def causal(self) -> bool:
    """True if no decoder token can learn of a later one."""
    return all(all(m.causal for m in b.mixers) and b.ffn.causal for b in blocks(self))

  @property
  def ahead(self) -> bool:
    """True if some layer tells a (decoder) token of later ones that are in no prefix."""
    ahead = lambda b: any(not (m.causal or 'prefix' in m.reads) for m in b.mixers) or not b.ffn.causal
    return any(ahead(b) for b in blocks(self))

  @property
  def apart(self) -> bool:
    """True if tokens learn of each other through mixers only, so that none minds what else is in the batch."""
    reading = [] if self.encoder is None else blocks(self.encoder)
    return all(b.ffn.apart for b in [*blocks(self), *reading])

  @property
  def masked(self) -> bool:
    """True if tokens learn of each other through masks alone, so that an order told to `apply` hides what it should."""
    return self.encoder is None and all(all(m.masked for m in b.mixers) and b.ffn.apart for b in blocks(self))

  @property
  def reads_prefix(self) -> bool:
    """True if some mask reads the input `prefix_mask`."""
    return 'prefix' in reads(self)

  @property
  def max_positions(self) -> int | None:
    """The longest row the (decoder) stack can tell the positions of, or None."""
    return max_positions(self)

  def check(self) -> Iterator[str]:
    if self.vocab < 1 or self.d_model < 1:
      yield f'vocab={self.vocab}, d_model={self.d_model} is no size. Wanted at least 1 of each.'
    yield from _shared_heads(self)
    bare = self.head is not None and self.head.tied and self.head.transform is None
    if self.embed.back and (self.encoder is not None or self.mtp is not None):
      yield 'embed.back is for a single stack, without encoder and mtp. Wanted embed.back=false, or neither of them.'
    if self.embed.back and self.head is not None and self.head.transform is not None:
      yield 'embed.back leads to the width of the table, and so does head.transform. Wanted one of them.'
    if bare and not self.embed.back and self.embed.dim not in (None, self.d_model):
      yield (
        f'the head is tied to a table of width embed.dim={self.embed.dim}, and states have d_model={self.d_model}. '
        'Wanted head.transform, which leads there, or head.tied=false.'
      )
    crosses = {b.cross is not None for b in blocks(self)}
    if self.encoder is not None and not self.encoder.vocab and self.source.embed.dim != self.embed.dim:
      yield (
        f'encoder.embed.dim={self.source.embed.dim} is no width of the shared table, whose embed.dim is '
        f'{self.embed.dim}. Wanted the same, or encoder.vocab for a table of its own.'
      )
    if self.encoder is not None and True not in crosses:
      yield 'encoder is given, but no block has a cross mixer to read it. Wanted segments..cross=attention.'
    if self.encoder is None and True in crosses:
      yield 'a block has a cross mixer, but there is no encoder to read. Wanted cross=none, or an encoder.'
    if self.encoder is not None and 'type' in reads(self):
      yield 'layers of the decoder ask the types of tokens, and only the encoder is told. Wanted relative.types=false.'
    if self.mtp is not None and self.head is None:
      yield 'mtp predicts tokens, and there is no head to say them. Wanted a head, or mtp=none.'
    if self.mtp is not None and not (self.causal or self.reads_prefix):
      yield 'mtp predicts later tokens, and a mask or router tells of them. Wanted mask=causal, or mtp=none.'
    if self.mtp is not None and not self.mtp.chained and len(self.segments) < 2:
      yield (
        'mtp shares what enters the last segment, and the model has one: nothing would be shared. '
        'Wanted the layers of the next token in a segment of their own, usually one layer.'
      )
    for where, stack in (('', self), ('encoder.', self.encoder)):
      if stack is None:
        continue
      width = self.d_model if stack is self else self.source.d_model
      yield from (f'{where}shared_relative: {m}' for m in _shared_fits(stack, width))
      for i, segment in enumerate(stack.segments):
        for j, block in enumerate(segment.pattern):
          at = f'{where}segments.{i}.pattern.{j}'
          yield from (f'{at}: {m}' for m in stack.residual.fits(block.wiring))
          yield from (f'{at}.mixer: {m}' for m in block.mixer.fits(width))
          if block.aside is not None:
            yield from (f'{at}.aside: {m}' for m in block.aside.fits(width))
            if block.aside.state(width):
              yield f'{at}.aside: would cache what it reads, and nobody keeps it. Wanted conv or fourier.'
          if 'block' in block.mixer.reads - block.mixer.provides:
            yield f'{at}.mixer.relative: {_UNBLOCKED}'
          if block.cross is not None:
            yield from (f'{at}.cross: {m}' for m in block.cross.fits(width))


def max_positions(stack: Model | Encoder) -> int | None:
  """The longest row whose positions a stack can tell apart, or None for any."""
  told = [stack.absolute.max_positions, stack.shared_relative.max_positions]
  told += [b.mixer.max_positions for b in blocks(stack)]
  return min((n for n in told if n is not None), default=None)


def reads(stack: Model | Encoder) -> frozenset[str]:
  """The extras of `TokenInfo` that the layers of a stack use."""
  return frozenset().union(stack.shared_relative.reads, *(b.mixer.reads for b in blocks(stack)))


def blocks(stack: Model | Encoder) -> list[Block]:
  """Every block that differs in place, once (repeats not counted)."""
  return [b for s in stack.segments for b in s.pattern]


def depth(stack: Model | Encoder) -> int:
  """How many layers deep it is."""
  return sum(len(s.pattern) * s.repeats for s in stack.segments)


def shared_heads(stack: Model | Encoder) -> int:
  """The number of heads a shared relative position serves."""
  return next((getattr(b.mixer, 'heads', 0) for b in blocks(stack)), 0)


def shared_head_dim(stack: Model | Encoder, d_model: int) -> int:
  """How many numbers of a head a shared relative position sees."""
  return next((n for b in blocks(stack) if (n := b.mixer.told_dim(d_model))), 0)


def shared_value_dim(stack: Model | Encoder, d_model: int) -> int:
  """How many numbers the values have that a shared relative position adds to."""
  return next((n for b in blocks(stack) if (n := b.mixer.value_dim(d_model))), 0)


def common(stack: Model | Encoder) -> Any:
  """What the mixers of a stack share, or None."""
  return next((c for b in blocks(stack) if (c := b.mixer.common) is not None), None)


def _shared_heads(stack: Model | Encoder) -> Iterator[str]:
  if len({c for b in blocks(stack) if (c := b.mixer.common) is not None}) > 1:
    yield 'mixers of one stack would share different things. Wanted the same in all of its layers.'
  heads = sorted({getattr(b.mixer, 'heads', 0) for b in blocks(stack)})
  shared = stack.shared_relative
  if (shared.biased or shared.placed or shared.contextual) and len(heads) > 1:
    yield f'shared_relative serves layers of {heads} heads. Wanted the same number everywhere, or a table per layer.'


_UNBLOCKED = 'blocks=true tells of keys that stand for blocks, and no layer has any. Wanted transient, or blocks=false.'


def _shared_fits(stack: Model | Encoder, d_model: int) -> Iterator[str]:
  """A sentence for each reason why the layers of a stack cannot ask what they share."""
  shared = stack.shared_relative
  if shared == Relative():
    return
  sizes = sorted({n for b in blocks(stack) if (n := b.mixer.told_dim(d_model))})
  if not sizes:
    yield 'no layer asks it, for none looks at tokens. Wanted shared_relative=none.'
  if 'block' in shared.reads and not any('block' in b.mixer.provides for b in blocks(stack)):
    yield _UNBLOCKED
  if shared.contextual and len(sizes) > 1:
    yield f'its vectors serve heads of {sizes} numbers. Wanted the same everywhere, or mixer.relative, one a layer.'
  values = sorted({n for b in blocks(stack) if (n := b.mixer.value_dim(d_model))})
  if shared.valued and len(values) > 1:
    yield f'it adds to values of {values} numbers. Wanted the same everywhere, or mixer.relative, one a layer.'
  yield from (m for n in sizes for m in shared.fits(n))
