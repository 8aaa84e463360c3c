"""What does not fit together in a model, as sentences that begin with the path of the field."""

from collections.abc import Iterator
from typing import Any, cast

from tfm.core import errors, nodes
from tfm.model import outputs as outputs_lib
from tfm.model.spec import MAIN, Model, Tower, blocks, last_width, placed, reads, resampled
from tfm.parts.relative.base import Relative

_NO_BLOCKS = 'blocks=true is about keys that summarise blocks, and no layer has any. Expected mixer=transient, or blocks=false.'
#: Names of parameters beside those of towers and heads.
_RESERVED = (
  'embed',
  'absolute',
  'shared_relative',
  'common',
  'residual',
  'norm',
  'mtp',
  'head',
  'classifier',
)


def violations(model: Model) -> Iterator[str]:
  """Yield a sentence for each reason why the parts of `model` do not go together."""
  yield from _names(model)
  if broken := [*_links(model), *_outputs(model)]:
    yield from broken
    return
  if model.embed.shares:
    yield 'embed.vocab is none, and there is no other table to share. Expected the number of token ids.'
    return
  for name in (MAIN, *model.towers):
    at = f'towers.{name}.' if name else ''
    yield from _tower(model.tower(name), at)
    own = model.towers[name].embed if name else None
    if own is not None and own.shares and model.embed.token_embed is not model.embed:
      yield f'{at}embed: shares a token table, and embed={_kind(model.embed)} has none to share. Expected embed.vocab.'
  yield from _encoder_decoder(model)
  yield from _mtp(model)


def _names(model: Model) -> Iterator[str]:
  for name in model.towers:
    if (
      not name.isidentifier()
      or name in _RESERVED
      or name.startswith('segment_')
      or name.endswith('_head')
    ):
      yield f'towers.{name}: is no name for a tower. Expected a word such as encoder, vision or audio.'
  for at, tower in (('', model), *((f'towers.{n}.', t) for n, t in model.towers.items())):
    for name in tower.heads:
      if not name.isidentifier():
        yield f'{at}heads.{name}: is no name for a head. Expected a word such as lm or classify.'


def _links(model: Model) -> Iterator[str]:
  """Towers that are read but missing, and towers that read each other in a circle."""
  for name in (MAIN, *model.towers):
    at = f'towers.{name}: ' if name else ''
    for other in sorted(model.tower(name).reads_towers - set(model.towers)):
      known = ', '.join(model.towers) or 'none'
      if other == 'encoder' and not name and other not in model.embed.towers:
        yield 'a block has cross-attention, but there is no tower encoder to read. Expected cross=none, or an encoder.'
      else:
        yield f'{at}reads tower {other!r}, which does not exist. Known towers: {known}.'
  if circle := _circle(model):
    yield f'towers: {" -> ".join(circle)} read each other in a circle. Expected an order in which each can run.'


def _outputs(model: Model) -> Iterator[str]:
  """Outputs that two heads return, and outputs that a head reads and none returns before it runs."""
  taken: dict[str, str] = {
    'last_hidden_state': 'the model',
    'aux': 'the model',
    'load': 'the model',
  }
  taken |= {f'{name}_last_hidden_state': f'towers.{name}' for name in model.towers}
  for output, source in outputs_lib.listed(model):
    if output in taken:
      yield f'{source.path}: returns {output!r}, as {taken[output]} does. Expected another {source.path}.name.'
    taken.setdefault(output, source.path)
  found = outputs_lib.sources(model)
  for name in (MAIN, *model.towers):
    for head, part in model.tower(name).heads.items():
      path = outputs_lib.Source(name, head).path
      for output in part.reads:
        if output not in found:
          yield f'{path}: reads an output that no head returns: {errors.unknown("output", output, found)}'
        elif name and not found[output].tower:
          yield f'{path}: reads {output!r} of the own tower of the model, which runs last. Expected heads.{head}.'
      yield from (f'{path}: {m}' for m in _widths(model, part.reads))
    yield from _circle_of_heads(model, name)


def _widths(model: Model, reads: tuple[str, ...]) -> Iterator[str]:
  """A sentence if the vectors that a head compares are of different widths."""
  found = outputs_lib.sources(model)
  widths: dict[str, int] = {}
  for output in (name for name in reads if name in found):
    tower = model.tower(found[output].tower)
    d_out = tower.embed.d_out if tower.embed is not None else None
    if (width := tower.heads[found[output].head].vector(d_out or last_width(tower))) is not None:
      widths[output] = width
  if len(set(widths.values())) > 1:
    said = ' and '.join(f'{name} of width {width}' for name, width in widths.items())
    yield f'reads {said}. Expected the same width, such as by their dim.'


def _circle_of_heads(model: Model, tower: str) -> Iterator[str]:
  done: set[str] = set()
  returned = outputs_lib.sources(model)
  for name in outputs_lib.head_order(model, tower):
    own = {returned[o] for o in model.tower(tower).heads[name].reads if o in returned}
    for source in sorted(own):
      if source.tower == tower and source.head not in done:
        yield f'{outputs_lib.Source(tower, name).path}: reads {source.path}, which reads it. Expected no circle.'
    done.add(name)


def _circle(model: Model) -> list[str]:
  """Return the names of towers along a circle of reads, empty if there is none."""
  done: set[str] = set()

  def visit(name: str, path: list[str]) -> list[str]:
    if name in path:
      return [*path[path.index(name) :], name]
    if name in done or name not in model.towers:
      return []
    done.add(name)
    return next(
      (c for o in sorted(outputs_lib.before(model, name)) if (c := visit(o, [*path, name]))), []
    )

  return next((c for name in model.towers if (c := visit(name, []))), [])


def _tower(tower: Tower, at: str) -> Iterator[str]:
  """Yield what is wrong within one tower, whose paths begin with `at`."""
  width = tower.d_model or 0
  embed = tower.embed
  assert embed is not None
  if width < 1:
    yield f'{at}d_model={width} is not a width. Expected at least 1.'
    return
  yield from (f'{at}embed: {m}' for m in embed.fits(width))
  yield from (f'{at}{m}' for m in _same_heads(tower))
  yield from (f'{at}shared_relative: {m}' for m in _shared_relative(tower))
  yield from _reads(tower, at)
  for name, head in tower.heads.items():
    yield from (f'{at}heads.{name}: {m}' for m in head.fits(tower))
    if head.stream is not None:
      yield from (f'{at}heads.{name}: {m}' for m in _stream(tower, head.stream))
  yield from (f'{at}{m}' for m in _conditions(tower))
  if embed.prepended and resampled(tower):
    yield f'{at}embed: its first vectors are not returned, and segments change the length. Expected embed=tokens.'
  before = width
  for i, segment in enumerate(tower.segments):
    if segment.resample is not None:
      yield from (f'{at}segments.{i}.resample: {m}' for m in segment.resample.fits(before))
      if segment.resample.grid and 'grid' not in embed.provides:
        yield f'{at}segments.{i}.resample: needs a grid of image patches, and embed={_kind(embed)} gives none.'
    before = segment.d_model or before
  for where, _, block, d in placed(tower):
    path = f'{at}{where}'
    yield from (f'{path}: {m}' for m in tower.residual.fits(block.residual_layout))
    for name in ('mixer', 'extra_branch', 'cross', 'ffn', 'second_ffn'):
      if (part := getattr(block, name)) is not None:
        yield from (f'{path}.{name}: {m}' for m in part.fits(d))
    if block.extra_branch is not None and block.extra_branch.state(d):
      yield f'{path}.extra_branch: needs a cache, and an extra branch has none. Expected conv or fourier.'


def _stream(tower: Tower, name: str) -> Iterator[str]:
  """Reasons why a head cannot pick the stream of a name."""
  assert tower.embed is not None
  known = tower.embed.streams
  if name not in known:
    listed = f'one of {", ".join(known)}' if known else 'stream=none, or embed=interleave'
    yield f'stream={name!r} is no stream of embed={_kind(tower.embed)}. Expected {listed}.'
  elif resampled(tower):
    yield f'stream={name!r}: a segment changes the length, so streams do not take turns. Expected stream=none.'


def _conditions(tower: Tower) -> Iterator[str]:
  """Norms and residual scales that need a condition where there is none."""
  assert tower.embed is not None
  given = {
    'norm',
    *(f'{where}.{kind}' for where, *_ in placed(tower) for kind in ('norm', 'residual_scale')),
  }
  wanted = [
    c
    for c in nodes.walk(tower)
    if getattr(c.value, 'conditioned', False) and not c.path.startswith('towers.')
  ]
  if tower.embed.conditions and not wanted:
    yield 'embed: gives a condition, and no norm or residual_scale needs one. Expected norm=adaptive or residual_scale=gate.'
  for child in wanted:
    kind = f'{child.name}={_kind(child.value)}'
    if child.path not in given:
      yield f'{child.path}: {kind} needs a condition, and here it is given none. Expected one without, such as layer.'
    elif not tower.embed.conditions:
      yield (
        f'{child.path}: {kind} needs a condition, and embed={_kind(tower.embed)} gives none. '
        'Expected embed=conditioned, or a norm and residual_scale without a condition.'
      )


def _reads(tower: Tower, at: str) -> Iterator[str]:
  """Extras of tokens that layers need and nothing provides."""
  assert tower.embed is not None
  given = tower.embed.provides
  for where, _, block, _ in placed(tower):
    for field, part in block.ffns.items():
      for extra in sorted(part.reads - given):
        yield f'{at}{where}.{field}: needs {extra!r} of each token, and no input provides it.'
    for mixer in block.mixers:
      for extra in sorted(mixer.reads - mixer.provides - given):
        kind = (
          f'mask={_name(mixer, "mask")}'
          if extra == 'prefix'
          else f'relative={_name(mixer, "relative")}'
        )
        why = (
          _NO_BLOCKS
          if extra == 'block'
          else f'{kind} needs {extra!r} of each token, and no input provides it.'
        )
        yield f'{at}{where}.mixer{".relative" if extra == "block" else ""}: {why}'


def _name(mixer: object, field: str) -> str:
  part = getattr(mixer, field, None)
  return 'none' if part is None else _kind(part)


def _kind(part: Any) -> str:
  return part.table().name_of(part)


def _same_heads(tower: Tower) -> Iterator[str]:
  if len({c for b in blocks(tower) for m in b.mixers if (c := m.common) is not None}) > 1:
    yield 'mixers of one tower would share different modules. Expected the same in all of its layers.'
  heads = sorted(
    {getattr(m, 'heads', 0) for *_, b, d in placed(tower) for m in b.mixers if m.told_dim(d)}
  )
  shared = tower.shared_relative
  if (shared.biased or shared.placed or shared.contextual) and len(heads) > 1:
    yield f'shared_relative serves layers of {heads} heads. Expected the same number everywhere, or a table per layer.'


def _shared_relative(tower: Tower) -> Iterator[str]:
  """Reasons why the layers of a tower cannot use its shared relative position."""
  shared = tower.shared_relative
  if shared == Relative():
    return
  sizes = sorted({n for *_, b, d in placed(tower) for m in b.mixers if (n := m.told_dim(d))})
  if not sizes:
    yield 'is set, but no mixer uses attention. Expected shared_relative=none.'
  provided = frozenset().union(*(m.provides for b in blocks(tower) for m in b.mixers))
  assert tower.embed is not None
  for extra in sorted(shared.reads - provided - tower.embed.provides):
    yield (
      _NO_BLOCKS
      if extra == 'block'
      else f'needs {extra!r} of each token, and no input provides it.'
    )
  if shared.contextual and len(sizes) > 1:
    yield f'its vectors serve heads of sizes {sizes}. Expected one size everywhere, or mixer.relative, one per layer.'
  values = sorted({n for *_, b, d in placed(tower) for m in b.mixers if (n := m.value_dim(d))})
  if shared.valued and len(values) > 1:
    yield f'it adds to values of sizes {values}. Expected one size everywhere, or mixer.relative, one per layer.'
  yield from (m for n in sizes for m in shared.fits(n))


def _encoder_decoder(model: Model) -> Iterator[str]:
  encoder, own = model.encoder, cast(Any, model.embed.token_embed)
  if encoder is None:
    return
  if not any('encoder' in t.reads_towers for t in (model, *model.towers.values())):
    yield 'there is a tower encoder, but no block has cross-attention to it. Expected segments..cross=attention.'
  if 'type' in reads(model):
    yield 'layers of the decoder use token types, and only the encoder is given any. Expected relative.types=false.'
  if getattr(model.embed.token_embed, 'back', False):
    yield 'embed.back needs a single tower without mtp. Expected embed.back=false, or neither encoder nor mtp.'
  if encoder.d_model not in (None, model.d_model) and encoder.shares:
    yield (
      "towers.encoder: has a d_model of its own, and the decoder's token table. "
      'Expected embed.vocab=..., or d_model=none.'
    )
  elif encoder.embed is not None and encoder.embed.shares and encoder.embed.dim != own.dim:
    yield (
      f'towers.encoder.embed: dim={encoder.embed.dim} is not the width of the shared table, whose '
      f'embed.dim is '
      f'{own.dim}. Expected the same, or embed.vocab for a table of its own.'
    )


def _mtp(model: Model) -> Iterator[str]:
  if model.mtp is None:
    return
  if model.embed.token_embed is not model.embed:
    yield f'mtp reads token embeddings, and embed={_kind(model.embed)}. Expected embed=tokens, or mtp=none.'
    return
  if getattr(model.embed.token_embed, 'back', False) and model.encoder is None:
    yield 'embed.back needs a single tower without mtp. Expected embed.back=false, or neither encoder nor mtp.'
  if model.lm is None:
    yield 'mtp predicts tokens, and there is no head for them. Expected heads.lm=lm, or mtp=none.'
  if not (model.causal or model.reads_prefix):
    yield 'mtp predicts later tokens, and a mask or router shows them. Expected mask=causal, or mtp=none.'
  if not model.mtp.chained and len(model.segments) < 2:
    yield (
      'mtp shares what enters the last segment, and the model has one segment: nothing would be '
      'shared. '
      'Expected the layers of the next token in a segment of their own, usually one layer.'
    )
  if blocks(model) and blocks(model)[-1].mixer is None:
    yield 'mtp repeats the last layer, which has no mixer. Expected a mixer, or mtp=none.'
