"""Checks of a whole model: sentences that begin with the path of the field."""

from collections.abc import Iterator
from typing import Any, cast

from tfm.core import errors, nodes
from tfm.model import lending
from tfm.model import outputs as outputs_lib
from tfm.model.spec import (
  MAIN,
  Model,
  Tower,
  blocks,
  blocks_with_width,
  last_width,
  resampled,
  token_extras,
)
from tfm.parts.relative.base import Relative

_NO_BLOCKS = (
  'blocks=true is for keys that summarise blocks, and no layer has such keys. '
  'Expected mixer=transient, or blocks=false.'
)
_NO_BACK = (
  'embed.back needs a single tower without mtp. '
  'Expected embed.back=false, or neither encoder nor mtp.'
)
#: Parameter names that towers and heads cannot have.
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
  """Yield a sentence for each conflict between the parts of a model."""
  yield from _names(model)
  if broken := [*_links(model), *_outputs(model)]:
    yield from broken
    return
  if model.embed.shares:
    yield 'embed.vocab is none, but there is no table to share. Expected the number of token ids.'
    return
  for name in (MAIN, *model.towers):
    at = f'towers.{name}.' if name else ''
    yield from _tower(model.tower(name), at)
    embed = model.towers[name].embed if name else None
    if embed is not None and embed.shares and model.embed.token_embed is not model.embed:
      yield (
        f'{at}embed: shares a token table, but embed={_kind(model.embed)} has none. '
        'Expected embed.vocab.'
      )
  yield from _encoder_decoder(model)
  yield from _mtp(model)


def _names(model: Model) -> Iterator[str]:
  for name in model.towers:
    reserved = name in _RESERVED or name.startswith('segment_') or name.endswith('_head')
    if reserved or not name.isidentifier():
      yield (
        f'towers.{name}: is not a valid name for a tower. '
        'Expected a word such as encoder, vision or audio.'
      )
  for at, tower in (('', model), *((f'towers.{n}.', t) for n, t in model.towers.items())):
    for name in tower.heads:
      if not name.isidentifier():
        yield (
          f'{at}heads.{name}: is not a valid name for a head. '
          'Expected a word such as lm or classify.'
        )


def _links(model: Model) -> Iterator[str]:
  """Yield reads of missing towers, and cycles of reads."""
  for name in (MAIN, *model.towers):
    at = f'towers.{name}: ' if name else ''
    for other in sorted(model.tower(name).reads_towers - set(model.towers)):
      known = ', '.join(model.towers) or 'none'
      if other == 'encoder' and not name and other not in model.embed.towers:
        yield (
          'a block has cross-attention, but there is no tower encoder. '
          'Expected cross=none, or an encoder.'
        )
      else:
        yield (
          f'{at}reads tower {other!r}, which does not exist. '
          f'Expected a tower of the model: {known}.'
        )
  if cycle := _tower_cycle(model):
    yield f'towers: {" -> ".join(cycle)} read each other in a cycle. Expected no cycle.'


def _outputs(model: Model) -> Iterator[str]:
  """Yield outputs that two heads return, and outputs that are read but not returned before."""
  taken: dict[str, str] = dict.fromkeys(('last_hidden_state', 'aux', 'load'), 'the model')
  taken |= {f'{name}_last_hidden_state': f'towers.{name}' for name in model.towers}
  for output, source in outputs_lib.all_outputs(model):
    if output in taken:
      yield (
        f'{source.path}: returns {output!r}, as {taken[output]} does. '
        f'Expected another {source.path}.name.'
      )
    taken.setdefault(output, source.path)
  found = outputs_lib.output_heads(model)
  for name in (MAIN, *model.towers):
    for head, part in model.tower(name).heads.items():
      path = outputs_lib.HeadPath(name, head).path
      for output in part.reads:
        if output not in found:
          unknown = errors.unknown('output', output, found)
          yield f'{path}: reads an output that no head returns: {unknown}'
        elif name and not found[output].tower:
          yield (
            f"{path}: reads {output!r} of the model's own tower, which runs last. "
            f'Expected heads.{head}.'
          )
      yield from (f'{path}: {m}' for m in _widths(model, part.reads))
    yield from _head_cycles(model, name)


def _widths(model: Model, reads: tuple[str, ...]) -> Iterator[str]:
  """Yield a sentence if the vectors that a head compares have different widths."""
  found = outputs_lib.output_heads(model)
  widths: dict[str, int] = {}
  for output in (name for name in reads if name in found):
    tower = model.tower(found[output].tower)
    d_out = tower.embed.d_out if tower.embed is not None else None
    width = tower.heads[found[output].head].vector(d_out or last_width(tower))
    if width is not None:
      widths[output] = width
  if len(set(widths.values())) > 1:
    listed = ' and '.join(f'{name} of width {width}' for name, width in widths.items())
    yield f'reads {listed}. Expected the same width; see the dim of their heads.'


def _head_cycles(model: Model, tower: str) -> Iterator[str]:
  done: set[str] = set()
  heads = outputs_lib.output_heads(model)
  for name in outputs_lib.head_order(model, tower):
    path = outputs_lib.HeadPath(tower, name).path
    sources = {heads[o] for o in model.tower(tower).heads[name].reads if o in heads}
    for source in sorted(sources):
      if source.tower == tower and source.head not in done:
        yield f'{path}: reads {source.path}, which reads it. Expected no cycle.'
    done.add(name)


def _tower_cycle(model: Model) -> list[str]:
  """Return the names of towers along a cycle of reads, empty if there is none."""
  done: set[str] = set()

  def visit(name: str, path: list[str]) -> list[str]:
    if name in path:
      return [*path[path.index(name) :], name]
    if name in done or name not in model.towers:
      return []
    done.add(name)
    for other in sorted(outputs_lib.prerequisites(model, name)):
      if cycle := visit(other, [*path, name]):
        return cycle
    return []

  for name in model.towers:
    if cycle := visit(name, []):
      return cycle
  return []


def _tower(tower: Tower, at: str) -> Iterator[str]:
  """Yield the problems of one tower, with `at` before every path."""
  width = tower.d_model or 0
  embed = tower.embed
  assert embed is not None
  if width < 1:
    yield f'{at}d_model={width} is too small. Expected at least 1.'
    return
  yield from (f'{at}embed: {m}' for m in embed.fits(width))
  yield from (f'{at}{m}' for m in _same_heads(tower))
  yield from (f'{at}shared_relative: {m}' for m in _shared_relative(tower))
  yield from _extras(tower, at)
  for name, head in tower.heads.items():
    yield from (f'{at}heads.{name}: {m}' for m in head.fits(tower))
    if head.stream is not None:
      yield from (f'{at}heads.{name}: {m}' for m in _stream(tower, head.stream))
  yield from (f'{at}{m}' for m in _conditions(tower))
  yield from (f'{at}{m}' for m in lending.violations(tower))
  if embed.prepended and resampled(tower):
    yield (
      f'{at}embed: its prepended vectors cannot be removed, as segments change the length. '
      'Expected embed=tokens.'
    )
  before = width
  for i, segment in enumerate(tower.segments):
    if segment.resample is not None:
      yield from (f'{at}segments.{i}.resample: {m}' for m in segment.resample.fits(before))
      if segment.resample.grid and 'grid' not in embed.provides:
        yield (
          f'{at}segments.{i}.resample: needs a grid of image patches, which embed={_kind(embed)} '
          'does not provide. Expected embed=patches, or another resample.'
        )
    before = segment.d_model or before
  yield from _parts(tower, at)


def _parts(tower: Tower, at: str) -> Iterator[str]:
  """Yield the problems of the parts of each block."""
  for where, _, block, width in blocks_with_width(tower):
    path = f'{at}{where}'
    yield from (f'{path}: {m}' for m in tower.residual.fits(block.residual_layout))
    for name in ('mixer', 'extra_branch', 'cross', 'ffn', 'second_ffn'):
      if (part := getattr(block, name)) is not None:
        yield from (f'{path}.{name}: {m}' for m in part.fits(width))
    if block.extra_branch is not None and block.extra_branch.state(width):
      yield (
        f'{path}.extra_branch: needs a cache, which extra branches do not have. '
        'Expected conv or fourier.'
      )


def _stream(tower: Tower, name: str) -> Iterator[str]:
  """Yield reasons why a head cannot select a stream."""
  assert tower.embed is not None
  known = tower.embed.streams
  if name not in known:
    listed = f'one of {", ".join(known)}' if known else 'stream=none, or embed=interleave'
    yield f'stream={name!r} is not a stream of embed={_kind(tower.embed)}. Expected {listed}.'
  elif resampled(tower):
    yield (
      f'stream={name!r}: a segment changes the length, so streams are no longer interleaved. '
      'Expected stream=none.'
    )


def _conditions(tower: Tower) -> Iterator[str]:
  """Yield norms and residual scales that need a condition where there is none."""
  assert tower.embed is not None
  conditioned = {'norm'}
  for where, *_ in blocks_with_width(tower):
    conditioned |= {f'{where}.norm', f'{where}.residual_scale'}
  needing = [
    child
    for child in nodes.walk(tower)
    if getattr(child.value, 'conditioned', False) and not child.path.startswith('towers.')
  ]
  if tower.embed.conditions and not needing:
    yield (
      'embed: provides a condition, but no norm or residual_scale needs it. '
      'Expected norm=adaptive or residual_scale=gate.'
    )
  for child in needing:
    kind = f'{child.name}={_kind(child.value)}'
    if child.path not in conditioned:
      yield (
        f'{child.path}: {kind} needs a condition, which is not available here. '
        'Expected one without, such as layer.'
      )
    elif not tower.embed.conditions:
      yield (
        f'{child.path}: {kind} needs a condition, but embed={_kind(tower.embed)} provides none. '
        'Expected embed=conditioned, or a norm and residual_scale without a condition.'
      )


def _extras(tower: Tower, at: str) -> Iterator[str]:
  """Yield extras of tokens that layers need and no input provides."""
  assert tower.embed is not None
  provided = tower.embed.provides
  for where, _, block, _ in blocks_with_width(tower):
    for field, ffn in block.ffns.items():
      for extra in sorted(ffn.reads - provided):
        yield f'{at}{where}.{field}: {_missing_extra(extra)}'
    path = f'{at}{where}.mixer'
    for mixer in block.mixers:
      for extra in sorted(mixer.reads - mixer.provides - provided):
        if extra == 'block':
          yield f'{path}.relative: {_NO_BLOCKS}'
        else:
          field = 'mask' if extra == 'prefix' else 'relative'
          yield f'{path}: {_missing_extra(extra, f"{field}={_name(mixer, field)} ")}'


def _missing_extra(extra: str, subject: str = '') -> str:
  return f'{subject}needs {extra!r} of each token, and no input provides it.'


def _name(mixer: object, field: str) -> str:
  part = getattr(mixer, field, None)
  return 'none' if part is None else _kind(part)


def _kind(part: Any) -> str:
  name: str = part.table().name_of(part)
  return name


def _same_heads(tower: Tower) -> Iterator[str]:
  mixers = [(m, width) for *_, b, width in blocks_with_width(tower) for m in b.mixers]
  if len({m.common for m, _ in mixers if m.common is not None}) > 1:
    yield 'the mixers of one tower share a module with different settings. Expected equal ones.'
  heads = sorted({getattr(m, 'heads', 0) for m, width in mixers if m.relative_dim(width)})
  shared = tower.shared_relative
  if (shared.biased or shared.placed or shared.contextual) and len(heads) > 1:
    yield (
      f'shared_relative is used by layers with {heads} heads. '
      'Expected the same number everywhere, or mixer.relative per layer.'
    )


def _shared_relative(tower: Tower) -> Iterator[str]:
  """Yield reasons why the layers of a tower cannot use its shared relative position."""
  shared = tower.shared_relative
  if shared == Relative():
    return
  mixers = [(m, width) for *_, b, width in blocks_with_width(tower) for m in b.mixers]
  sizes = sorted({n for m, width in mixers if (n := m.relative_dim(width))})
  if not sizes:
    yield 'is set, but no mixer uses attention. Expected shared_relative=none.'
  provided = frozenset().union(*(m.provides for m, _ in mixers))
  assert tower.embed is not None
  for extra in sorted(shared.reads - provided - tower.embed.provides):
    yield _NO_BLOCKS if extra == 'block' else _missing_extra(extra)
  if shared.contextual and len(sizes) > 1:
    yield (
      f'its vectors are used by heads of sizes {sizes}. '
      'Expected one size everywhere, or mixer.relative per layer.'
    )
  values = sorted({n for m, width in mixers if (n := m.value_dim(width))})
  if shared.valued and len(values) > 1:
    yield (
      f'it is added to values of sizes {values}. '
      'Expected one size everywhere, or mixer.relative per layer.'
    )
  yield from (m for n in sizes for m in shared.fits(n))


def _encoder_decoder(model: Model) -> Iterator[str]:
  encoder, table = model.encoder, cast(Any, model.embed.token_embed)
  if encoder is None:
    return
  if not any('encoder' in t.reads_towers for t in (model, *model.towers.values())):
    yield (
      'there is a tower encoder, but no block has cross-attention to it. '
      'Expected segments..cross=attention.'
    )
  if 'type' in token_extras(model):
    yield (
      'layers of the decoder use token types, which only an encoder has. '
      'Expected relative.types=false.'
    )
  if getattr(table, 'back', False):
    yield _NO_BACK
  if encoder.d_model not in (None, model.d_model) and encoder.shares:
    yield (
      "towers.encoder: has another d_model than the decoder, but shares the decoder's token table. "
      'Expected embed.vocab=..., or d_model=none.'
    )
  elif encoder.embed is not None and encoder.embed.shares and encoder.embed.dim != table.dim:
    yield (
      f'towers.encoder.embed: dim={encoder.embed.dim} differs from the shared table '
      f'(embed.dim={table.dim}). Expected the same, or embed.vocab for a separate table.'
    )


def _mtp(model: Model) -> Iterator[str]:
  if model.mtp is None:
    return
  if model.embed.token_embed is not model.embed:
    yield (
      f'mtp reads token embeddings, but embed={_kind(model.embed)}. '
      'Expected embed=tokens, or mtp=none.'
    )
    return
  if getattr(model.embed.token_embed, 'back', False) and model.encoder is None:
    yield _NO_BACK
  if model.lm is None:
    yield 'mtp predicts tokens, but there is no head lm. Expected heads.lm=lm, or mtp=none.'
  if not (model.causal or model.reads_prefix):
    yield (
      'mtp predicts later tokens, which a mask or router makes visible. '
      'Expected mask=causal, or mtp=none.'
    )
  if not model.mtp.chained and len(model.segments) < 2:
    yield (
      'mtp shares the input of the last segment, but the model has one segment. '
      'Expected the layers for the next token in a separate segment, usually one layer.'
    )
  if blocks(model) and blocks(model)[-1].mixer is None:
    yield 'mtp repeats the last layer, which has no mixer. Expected a mixer, or mtp=none.'
  if blocks(model) and any(m.lender for m in blocks(model)[-1].mixers):
    yield 'mtp repeats the last layer, which borrows keys. Expected mixer=attention, or mtp=none.'
