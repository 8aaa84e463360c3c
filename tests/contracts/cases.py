"""Every case that the contracts are asked of, drawn from the tables: a new row is picked up unasked."""

import dataclasses
import importlib
import itertools
import pathlib

from tfm import zoo
from tfm.core.registry import Table
from tfm.model.spec import Block, Embed, Encoder, Head, Model, Segment, Transform
import tfm.parts
from tfm.parts.absolute import Learned, Sinusoidal
from tfm.parts.attend import Blockwise, Staircase
from tfm.parts.cache import Int8Cache, PagedCache, RingCache
from tfm.parts.context import Run
from tfm.parts.cross import CrossAttention
from tfm.parts.ffn import Glu, Mlp, Moe
from tfm.parts.gain import LayerScale, ReZero
from tfm.parts.mask import (
  BigBird,
  Blocks,
  Causal,
  Fixed,
  Lambda,
  Mask,
  Permutation,
  Prefix,
  Segments,
  Strided,
  Window,
)
from tfm.parts.mixer import MLA, Attention, Disentangled
from tfm.parts.mixer.disentangled import Distances
from tfm.parts.mtp import ParallelMTP, SequentialMTP
from tfm.parts.norm import FixNorm, LayerNorm, RMSNorm, ScaleNorm
from tfm.parts.relative import XL, ALiBi, RoPE, T5Bias
from tfm.parts.relative.scaling import LongRoPE, Yarn
from tfm.parts.residual import Dlcl, Dwa, Reversible
from tfm.parts.router import Grouped, TopK
from tfm.parts.wiring import Bare, Parallel, Post


def tables() -> dict[str, Table]:
  """The table of every kind of part, by the path of its folder under tfm/parts."""
  root = pathlib.Path(tfm.parts.__file__).parent
  folders = sorted(p.parent.relative_to(root) for p in root.rglob('base.py'))
  return {str(f): importlib.import_module('.'.join(['tfm.parts', *f.parts])).TABLE for f in folders}


def decoder(block: Block | None = None, **fields) -> Model:
  """Two causal layers of 4 heads, 2 of them with keys."""
  return Model(64, 32, (Segment((block or Block(Attention(4, 2, 8), Glu(48)),), 2),), **fields)


def two_segments(**fields) -> Model:
  """The decoder, its last layer in a segment of its own."""
  one = Segment((Block(Attention(4, 2, 8), Glu(48)),), 1)
  return dataclasses.replace(decoder(**fields), segments=(one, one))


def mixing(**fields) -> Model:
  """A decoder whose attention has these fields."""
  return decoder(Block(dataclasses.replace(Attention(4, 2, 8), **fields), Glu(48)))


def disentangled(**fields) -> Model:
  """A decoder whose attention is disentangled, with these fields."""
  return decoder(Block(dataclasses.replace(Disentangled(4, 2, 8), **fields), Glu(48)))


def latent(**fields) -> Model:
  """A decoder whose attention is latent, with these fields."""
  return decoder(Block(dataclasses.replace(MLA(4, None, 16, 8, 4, 12), **fields), Glu(48)))


def deep(**fields) -> Model:
  """Five causal blocks in two segments, one of them a pattern of two."""
  block = Block(Attention(4, 2, 8), Glu(48))
  return dataclasses.replace(decoder(**fields), segments=(Segment((block, block), 2), Segment((block,), 1)))


def sharing(ffn=None, **fields) -> Model:
  """Two groups of layers, a pattern of two that is repeated as it is, and a layer of its own."""
  block = Block(Attention(4, 2, 8), ffn or Glu(48))
  groups = Segment((block, block), 3, shared=True), Segment((block,), 2, shared=True), Segment((block,), 1)
  return dataclasses.replace(decoder(**fields), segments=groups)


def encoder(relative=None, mask=None, **fields) -> Model:
  """Two layers that see both ways."""
  attention = Attention(4, mask=mask or Mask(), **({} if relative is None else {'relative': relative}))
  return decoder(Block(attention, Glu(48)), **fields)


def encdec(cross=None, writer=None, reader=None, table=None, source=None, **fields) -> Model:
  """Two layers that read (with their own `table` and embedding, if given), two that write."""
  reader = reader or Block(Attention(4, mask=Mask()), Glu(48))
  writer = writer or Block(Attention(4), Glu(48))
  writer = dataclasses.replace(writer, cross=cross or CrossAttention(4))
  return decoder(writer, encoder=Encoder((Segment((reader,), 2),), vocab=table, embed=source), **fields)


def _placed(kind: str, part) -> Model:
  """A small model in which the part stands."""
  block = Block(Attention(4, 2, 8), Glu(48))
  in_block = lambda **f: decoder(dataclasses.replace(block, **f))
  places = {
    'absolute': lambda: decoder(absolute=part),
    'adapter': lambda: decoder(adapter=part),
    'act': lambda: in_block(ffn=Glu(48, part)),
    'cross': lambda: encdec(part),
    'ffn': lambda: in_block(ffn=part),
    'gain': lambda: in_block(gain=part),
    'mask': lambda: mixing(mask=part),
    'mixer': lambda: in_block(mixer=part),
    'mtp': lambda: two_segments(mtp=part),
    'norm': lambda: dataclasses.replace(in_block(norm=part), norm=part),
    'relative': lambda: mixing(relative=part),
    'relative/scaling': lambda: mixing(relative=RoPE(scaling=part)),
    'residual': lambda: decoder(residual=part),
    'router': lambda: in_block(ffn=Moe(8, part, Glu(48))),
    'wiring': lambda: in_block(wiring=part),
  }
  assert kind in places, f'tests/contracts/cases.py has no place for parts of tfm/parts/{kind}: add one'
  return places[kind]()


def runs() -> dict[str, Run]:
  """A run for every attention kernel."""
  return {f'attend={name}': Run(attend=row()) for name, row in tables()['attend'].items()}


def cached() -> dict[str, Run]:
  """A run for every way to keep a cache; a prompt that a ring writes at once, and one that it does not."""
  kinds = {f'cache={name}': row() for name, row in tables()['cache'].items()}
  kinds |= {
    'cache=ring-of-2': RingCache(2),
    'cache=paged-by-4': PagedCache(4),
    'cache=int8-ring': Int8Cache(RingCache()),
  }
  return {name: Run(cache=kind) for name, kind in kinds.items()}


#: Kinds that are no structure of a model: kernels and caches are a run's, how weights start is seen in tests/parts.
_ELSEWHERE = ('attend', 'cache', 'init')


def rows() -> dict[str, Model]:
  """A model for every row of every table, the part at its defaults, shrunk."""
  found = {f'{kind}={n}': _placed(kind, t[n]()) for kind, t in tables().items() for n in t if kind not in _ELSEWHERE}
  return {name: zoo.tiny(spec) for name, spec in found.items()}


def variants() -> dict[str, Model]:
  """Fields that change the structure of a part, and ways to join parts."""
  glu, attention = Glu(48), Attention(4, 2, 8)
  local = Block(Attention(4, 1, 8, RoPE(), Window(3)), glu)
  two_stacks = {'shared_relative': T5Bias(), 'absolute': Sinusoidal('t2t')}
  return {
    'absolute=halves': decoder(absolute=Sinusoidal('halves')),
    'relative=interleaved': mixing(relative=RoPE(layout='interleaved')),
    'relative=partial': mixing(relative=RoPE(fraction=0.25)),
    'relative=alibi-scaled': mixing(relative=ALiBi(4.0, 0.3)),
    'relative=longrope-factors': mixing(relative=RoPE(scaling=LongRoPE((1.0,) * 4, (1.0, 1.5, 2.0, 4.0), 8, 32))),
    'relative=shared': decoder(shared_relative=T5Bias()),
    'relative=shared-and-own': dataclasses.replace(mixing(relative=RoPE()), shared_relative=ALiBi()),
    'mask=both': mixing(mask=Window(3) & Causal() & Segments()),
    'mask=prefix-of-3': mixing(mask=Prefix(3)),
    'mask=window-both-ways': mixing(mask=Window(2, ahead=True)),
    'mask=window-dilated': mixing(mask=Window(2, step=3)),
    'mask=strided-4': mixing(mask=Strided(4)),
    'mask=fixed-4': mixing(mask=Fixed(4, 1)),
    'mask=lambda-2-3': mixing(mask=Lambda(2, 3)),
    'mask=bigbird-12': mixing(mask=BigBird(1, 2, 12)),
    'mask=permutation-others': mixing(mask=Permutation(itself=False), sink=True),
    'mask=blocks-4': mixing(mask=Blocks(('100', '110', '011'), 4) & Causal()),
    'mixer=mha': mixing(kv_heads=None),
    'mixer=mqa': mixing(kv_heads=1),
    'mixer=one-head': mixing(heads=1, kv_heads=None, head_dim=32),
    'mixer=wide-heads': mixing(head_dim=12),
    'mixer=qkv-bias': mixing(bias='qkv', relative=RoPE()),
    'mixer=all-biases': mixing(bias='qkvo', relative=RoPE()),
    'mixer=disentangled-far': disentangled(distances=Distances(4, 10, LayerNorm()), terms=('p2c',), own=True),
    'mixer=disentangled-all': disentangled(distances=Distances(3), bias='qv', own=True),
    'mixer=cap': mixing(cap=2.0),
    'mixer=clip': mixing(clip=0.1, relative=RoPE()),
    'mixer=qk-over-all': mixing(qk_norm=RMSNorm(), qk_norm_over='all', relative=RoPE()),
    'mixer=sink': mixing(sink=True),
    'mixer=unscaled': mixing(scale=1.0),
    'mixer=qk-each-head': mixing(qk_norm=LayerNorm(), qk_norm_over='each', relative=RoPE()),
    'mixer=mla-of-latent-queries': latent(q_rank=24, bias='qco', sink=True),
    'mixer=mla-t5': latent(relative=T5Bias(8, 16)),
    'mixer=mla-xl': latent(relative=XL()),
    'mixer=mla-prefix': latent(relative=RoPE(scaling=Yarn(4.0, 8, mscale=0.7, mscale_all=0.7)), mask=Prefix()),
    'mtp=chain-of-2': decoder(mtp=SequentialMTP(2, hidden_first=True), shared_relative=T5Bias()),
    'mtp=two-heads': two_segments(mtp=ParallelMTP(2), head=Head(tied=False)),
    **{f'mixer=qk-{n}': mixing(qk_norm=row(), relative=RoPE()) for n, row in tables()['norm'].items()},
    'norm=one-plus': decoder(Block(attention, glu, RMSNorm(one_plus=True, scale_first=True))),
    'norm=no-bias': decoder(Block(attention, glu, LayerNorm(bias=False))),
    'norm=layer-one-plus': decoder(Block(attention, glu, LayerNorm(one_plus=True))),
    'norm=bare': decoder(Block(attention, glu, LayerNorm(bias=False, scale=False))),
    'ffn=biased-glu': decoder(Block(attention, Glu(48, bias=True))),
    'ffn=limited-glu': decoder(Block(attention, Glu(48, limit=0.5, shift=1.0))),
    'ffn=plain-mlp': decoder(Block(attention, Mlp(48, bias=False))),
    'ffn=moe-shared': decoder(Block(attention, Moe(4, TopK(k=1, renormalize=False), Mlp(48), Glu(48)))),
    'ffn=moe-gated': decoder(Block(attention, Moe(4, TopK(bias=True), Glu(48), Glu(48), shared_gate=True))),
    'ffn=moe-capacity': decoder(Block(attention, Moe(4, capacity=0.5, expert=Glu(48, bias=True)))),
    'ffn=moe-slots': decoder(Block(attention, Moe(4, TopK(k=1, renormalize=False), glu, slots=2))),
    'ffn=moe-after-dense': dataclasses.replace(
      decoder(), segments=(Segment((Block(attention, glu),), 1), Segment((Block(attention, Moe(4, expert=glu)),), 2))
    ),
    'router=groups-of-softmax': decoder(
      Block(attention, Moe(8, Grouped(0, 0, 2, 'softmax', False, 16.0, group_score='max', rate=None), glu))
    ),
    'wiring=parallel-two-norms': decoder(Block(attention, glu, wiring=Parallel(norms_per_branch=True))),
    'wiring=rezero': decoder(Block(attention, glu, wiring=Bare(), gain=ReZero())),
    'residual=dilated': deep(residual=Dwa(2, 2)),
    'residual=two-segments': deep(residual=Dlcl(RMSNorm())),
    'residual=reversible-patterns': deep(residual=Reversible(), shared_relative=T5Bias()),
    'residual=reversible-parallel': decoder(Block(attention, glu, wiring=Parallel()), residual=Reversible()),
    'head=untied': decoder(head=Head(tied=False, bias=True)),
    'head=capped': decoder(head=Head(cap=5.0, scale=0.5, power=-0.5)),
    'head=transform': decoder(head=Head(bias=True, transform=Transform())),
    'embed=all': decoder(embed=Embed(2.0, 0.5, types=2, norm=LayerNorm())),
    'embed=narrow': decoder(
      absolute=Learned(64),
      embed=Embed(types=2, norm=LayerNorm(), dim=16, query=True),
      head=Head(bias=True, transform=Transform()),
    ),
    'embed=narrow-untied': decoder(embed=Embed(dim=16), head=Head(tied=False)),
    'embed=fixnorm': decoder(Block(attention, glu, ScaleNorm()), norm=ScaleNorm(), embed=Embed(rows=FixNorm())),
    'pattern=local-global': dataclasses.replace(
      decoder(), segments=(Segment((local, Block(attention, glu)), 2), Segment((Block(attention, Mlp(48)),), 1))
    ),
    'segment=shared': sharing(),
    'segment=shared-reversible': sharing(residual=Reversible()),
    'segment=shared-moe': sharing(ffn=Moe(4, expert=glu)),
    'encoder=rope': encoder(RoPE()),
    'encoder=alibi': encoder(ALiBi()),
    'encoder=t5': encoder(T5Bias()),
    'encoder=post': encoder(absolute=Sinusoidal(), norm=LayerNorm()),
    'encdec=grouped': encdec(CrossAttention(4, 2, 12)),
    'encdec=options': encdec(CrossAttention(4, 1, 8, bias='qvo', qk_norm=RMSNorm(), cap=3.0, sink=True, scale=0.5)),
    'encdec=parallel': encdec(writer=Block(Attention(4), glu, wiring=Parallel())),
    'encdec=post': encdec(writer=Block(Attention(4), glu, wiring=Post())),
    'encdec=reversible': dataclasses.replace(
      encdec(writer=Block(Attention(4), glu, gain=LayerScale())), residual=Reversible()
    ),
    'encdec=shared': encdec(**two_stacks),
    'encdec=two-tables': encdec(table=80, embed=Embed(types=2)),
    'encdec=own-norms': encdec(embed=Embed(norm=LayerNorm()), source=Embed(power=0.5, norm=LayerNorm())),
  }


def models() -> dict[str, Model]:
  """The models of the zoo, shrunk, in which some field of a part says what it says in no other model that is asked.

  What the others are made of is asked anyway, and all pairs of parts are; the numbers of families are in tests/hub.
  """
  others = [*rows().values(), *variants().values(), *(spec for spec, _ in pairs().values())]
  met: set = set().union(*map(_said, others))
  found = {}
  for name in zoo.names():
    spec = zoo.tiny(zoo.get(name))
    if (own := set(_said(spec))) - met:
      found[f'zoo={name}'] = spec
      met |= own
  return found


def _said(node):
  """(part, field, what stands there) of all parts of a spec; of numbers only that there is one."""
  if isinstance(node, tuple):
    for n in node:
      yield from _said(n)
  elif dataclasses.is_dataclass(node):
    for f in dataclasses.fields(node):
      value = getattr(node, f.name)
      number = isinstance(value, int | float | tuple) and not isinstance(value, bool)
      yield type(node).__name__, f.name, type(value).__name__ if number or dataclasses.is_dataclass(value) else value
      yield from _said(value)


#: Fields of attention that change what it does beyond its other parts.
_OPTIONS = {
  'plain': {},
  'cap': {'cap': 2.0},
  'sink': {'sink': True},
  'qk_norm': {'qk_norm': RMSNorm()},
  'bias': {'bias': 'qkvo'},
}

#: Kernels with tiles smaller than a row; `pallas` is run step by step, too slowly to be asked here (tests/parts).
_KERNELS = {'blockwise': Blockwise(4, 8), 'staircase': Staircase()}


def pairs() -> dict[str, tuple[Model, Run]]:
  """A few models, each with a run, in which every two rows of two kinds of part meet, and each meets each topology."""
  t = tables()
  kinds = ('absolute', 'relative', 'mask', 'act', 'norm', 'ffn', 'wiring')
  levels: dict[str, list] = {kind: list(t[kind]) for kind in kinds}
  levels |= {'topology': ['decoder', 'encoder', 'encdec'], 'kv_heads': [None, 1, 2], 'options': list(_OPTIONS)}
  levels |= {'attend': list(_KERNELS), 'cache': [name for name in t['cache'] if name != 'int8']}
  return {
    ','.join(f'{v}' for v in row.values()): (
      zoo.tiny(_assembled(t, row)), Run(attend=_KERNELS[row['attend']], cache=t['cache'][row['cache']]())
    )
    for row in covering(levels)
  }  # fmt: skip


def _assembled(t: dict[str, Table], row: dict) -> Model:
  norm, act = t['norm'][row['norm']](), t['act'][row['act']]()
  ffn = t['ffn'][row['ffn']]()
  ffn = dataclasses.replace(ffn, **({'act': act} if hasattr(ffn, 'act') else {'expert': Glu(48, act)}))
  relative, options = t['relative'][row['relative']](), _OPTIONS[row['options']]
  make = lambda mask: Block(
    Attention(4, row['kv_heads'], 8, relative=relative, mask=mask, **options), ffn, norm, t['wiring'][row['wiring']]()
  )
  mask, absolute = t['mask'][row['mask']](), t['absolute'][row['absolute']]()
  if row['topology'] == 'decoder':
    return decoder(make(mask & Causal()), absolute=absolute, norm=norm)
  if row['topology'] == 'encoder':
    return decoder(make(mask), absolute=absolute, norm=norm)
  writer = dataclasses.replace(make(mask & Causal()), cross=CrossAttention(4, row['kv_heads'], **options))
  reading = Encoder((Segment((make(mask),), 2),), absolute, norm)
  return decoder(writer, absolute=absolute, norm=norm, encoder=reading)


def covering(levels: dict[str, list]) -> list[dict]:
  """Rows, chosen greedily, in which every two values of every two factors meet."""
  names = list(levels)
  left = {
    (a, i, b, j)
    for a, b in itertools.combinations(range(len(names)), 2)
    for i in range(len(levels[names[a]]))
    for j in range(len(levels[names[b]]))
  }
  found = []
  while left:
    a, i, b, j = min(left)
    row = {a: i, b: j}
    for c in range(len(names)):
      if c not in row:
        gains = [sum(_key(c, v, d, w) in left for d, w in row.items()) for v in range(len(levels[names[c]]))]
        row[c] = gains.index(max(gains))
    left -= {_key(c, row[c], d, row[d]) for c, d in itertools.combinations(row, 2)}
    found.append({names[c]: levels[names[c]][row[c]] for c in range(len(names))})
  return found


def _key(c: int, v: int, d: int, w: int) -> tuple[int, int, int, int]:
  return (c, v, d, w) if c < d else (d, w, c, v)
