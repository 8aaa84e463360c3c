"""Every case that the contracts are asked of, drawn from the tables: a new row is picked up
unasked.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import importlib
import itertools
import pathlib
from typing import NamedTuple

from tests import groups
from tests.contracts.covering import covering
from tfm import zoo
from tfm.core.registry import Table
from tfm.model.remat import POLICIES
from tfm.model.spec import Block, Model, Segment, Tower
import tfm.parts
from tfm.parts.absolute import Sinusoidal
from tfm.parts.adapter import LoRA
from tfm.parts.attend import Blockwise, DenseAttention, Pallas, Staircase
from tfm.parts.cache import DenseCache, Int8Cache, PagedCache, RingCache
from tfm.parts.context import Run
from tfm.parts.cross import CrossAttention
from tfm.parts.embed.patches import Patches
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu, GroupedMlp, Mlp, Moe
from tfm.parts.head.classify import Classify
from tfm.parts.head.lm import Lm, Transform
from tfm.parts.length_scale import LengthScale
from tfm.parts.mask import (
  BigBird,
  Blocks,
  Causal,
  Chunks,
  Fixed,
  Lambda,
  Mask,
  Permutation,
  Prefix,
  Segments,
  Strided,
  Window,
)
from tfm.parts.mixer import (
  LSTM,
  MLA,
  RGLRU,
  Attention,
  BigBirdAttention,
  Bottleneck,
  Disentangled,
  GatedConv,
  GatedDelta,
  GlobalLocal,
  GroupedAttention,
  Hierarchical,
  LinearAttention,
  Longformer,
  Mamba,
  Mamba2,
  SpanConv,
  Sum,
  Transient,
)
from tfm.parts.mixer.disentangled import Distances
from tfm.parts.mtp import ParallelMTP, SequentialMTP
from tfm.parts.norm import FixNorm, LayerNorm, RMSNorm
from tfm.parts.relative import ALiBi, Axial, RoPE, Shaw, T5Bias, Temperature
from tfm.parts.relative.scaling import LongRoPE, Yarn
from tfm.parts.resample.merge import Merge
from tfm.parts.residual import Dlcl, Dwa
from tfm.parts.residual_layout import Adapted, Parallel
from tfm.parts.router import Grouped, Language, SparseMixer, TopK


class Case(NamedTuple):
  """A model, the run's kernel and cache, a remat policy if it is asked of one, and whether
  gradients are asked.
  """

  spec: Model
  run: Run
  remat: str | None = None
  backward: bool = True


def tables() -> dict[str, Table]:
  """The table of every kind of part, by the path of its folder under tfm/parts."""
  root = pathlib.Path(tfm.parts.__file__).parent
  folders = sorted(p.parent.relative_to(root) for p in root.rglob('base.py'))
  return {str(f): importlib.import_module('.'.join(['tfm.parts', *f.parts])).TABLE for f in folders}


def decoder(block: Block | None = None, **fields) -> Model:
  """Two causal layers of 4 heads, 2 of them with keys."""
  return Model(
    Tokens(64), 32, (Segment((block or Block(Attention(4, 2, 8), Glu(48)),), 2),), **fields
  )


def mixing(**fields) -> Model:
  """A decoder whose attention has these fields."""
  return decoder(Block(dataclasses.replace(Attention(4, 2, 8), **fields), Glu(48)))


def disentangled(**fields) -> Model:
  """A decoder whose attention is disentangled, with these fields."""
  return decoder(Block(dataclasses.replace(Disentangled(4, 2, 8), **fields), Glu(48)))


def adapted(**fields) -> Model:
  """A decoder with an adapter after the feed-forward, joined by a residual_layout with these
  fields.
  """
  return decoder(
    Block(Attention(4, 2, 8), Glu(48), LayerNorm(), Adapted(**fields), second_ffn=Mlp(16))
  )


def is_conditioned(row: type) -> bool:
  """Whether a part needs a condition of the input layer; test_inputs_and_heads.py covers these."""
  return getattr(row, 'conditioned', False)


def _rows(kind: str, *without: str) -> dict[str, list]:
  """Every row of a kind at its defaults; first, and so most often, the one that adds least."""
  plain = {'none', 'plain', 'pre', 'rms', 'relu', 'causal', 'dense'}
  known = [
    name for name, row in tables()[kind].items() if name not in without and not is_conditioned(row)
  ]
  names = sorted(known, key=lambda name: name not in plain)
  return {name: [tables()[kind][name]()] for name in names}


#: Relative positions that need rows and columns of patches, which text has not; `others` has models
#: with them.
OF_IMAGES = ('axial',)


def _levels() -> dict[str, dict[str, list]]:
  """Factor -> level -> what it may be: takes turns wherever the level stands, its fields after the
  row's defaults.
  """
  scaled = Glu(48, limit=0.5, shift=1.0, gate_scale=2.0, out_scale=0.5)
  feeds = {'glu': [Glu(48), Glu(48, bias=True), scaled], 'mlp': [Mlp(48), Mlp(48, bias=False)]}
  feeds |= {f'moe-{name}': [Moe(8, row(), Glu(48))] for name, row in tables()['router'].items()}
  feeds['grouped_mlp'] = [GroupedMlp(48), GroupedMlp(48, up_groups=1, down_groups=2)]
  feeds |= {name: [row()] for name, row in tables()['ffn'].items() if name not in (*feeds, 'moe')}
  # Where no rival is near, a choice has the weight 1 and no gradient.
  feeds['moe-sparse_mixer'] = [Moe(8, SparseMixer(jitter=jitter), Glu(48)) for jitter in (2.0, 1.0)]
  feeds['moe-top_k'] += [
    Moe(4, TopK(k=1, renormalize=False), Mlp(48), Glu(48)),
    Moe(4, TopK(bias=True), Glu(48), Glu(48), shared_gate=True),
    Moe(4, TopK(k=1, score='sigmoid', renormalize=False), Glu(48), scaled='input'),
  ]
  grouped = Grouped(0, 0, 2, 'softmax', False, 16.0, group_score='max', rate=None)
  feeds['moe-grouped'] += [Moe(8, grouped, Glu(48))]
  relative = _rows('relative', *OF_IMAGES)
  relative['rope'] += [RoPE(layout='interleaved'), RoPE(fraction=0.5)]
  relative['alibi'] += [ALiBi(4.0, 0.3)]
  relative['temperature'] = [Temperature(3, 0.5)]
  relative['shaw-values'] = [Shaw(values=True)]
  scaling = _rows('relative/scaling')
  scaling['yarn'] += [Yarn(4.0, 8, mscale=0.7, mscale_all=0.7)]
  # Every mask is joined with `segments`, by `both`.
  mask = _rows('mask', 'both', 'segments')
  mask['window'] = [Window(3), Window(2, ahead=True), Window(2, step=3)]
  mask['strided'] += [Strided(4)]
  mask['fixed'] += [Fixed(4, 1)]
  mask['lambda'] += [Lambda(2, 3)]
  mask['chunks'] = [Chunks(4), Chunks(5)]
  mask['bigbird'] += [BigBird(1, 2, 12)]
  mask['blocks'] += [Blocks(('100', '110', '011'), 4)]
  norm = _rows('norm')
  norm['rms'] += [RMSNorm(one_plus=True, scale_first=True), RMSNorm(scale=False)]
  norm['layer'] += [
    LayerNorm(bias=False),
    LayerNorm(one_plus=True),
    LayerNorm(bias=False, scale=False),
  ]
  absolute, residual_layout, residual, mtp = (
    _rows(kind) for kind in ('absolute', 'residual_layout', 'residual', 'mtp')
  )
  absolute['sinusoidal'] += [Sinusoidal('halves'), Sinusoidal('t2t')]
  residual_layout['parallel'] += [Parallel(norms_per_branch=True)]
  residual['dwa'] += [Dwa(2, 2)]
  residual['dlcl'] += [Dlcl(RMSNorm())]
  cache = _rows('cache')
  cache['ring'] += [RingCache(2)]
  cache['paged'] += [PagedCache(4)]
  cache['int8'] += [Int8Cache(RingCache())]
  mixer = _rows('mixer') | {'attention': [Attention(4, None, 8)]}
  mixer['disentangled'] = [
    Disentangled(4, None, 8),
    Disentangled(4, None, 8, distances=Distances(4, 10, LayerNorm()), terms=('p2c',), own=True),
    Disentangled(4, None, 8, distances=Distances(3), bias='qv', own=True),
  ]
  mixer['bigbird'] = [BigBirdAttention(4, None, 8, block=1, random=1)]
  mixer['bottleneck'] = [
    Bottleneck(16, Attention(4, 2, 8), 24, ffns=2),
    Bottleneck(16, Attention(4), 24, ffns=1, norm=LayerNorm(), shared=False),
  ]
  mixer['global_local'] = [GlobalLocal(4, None, 8, block=4, shift=2)]
  mixer['grouped'] = [
    GroupedAttention(4, None, 8, k_groups=2, v_groups=1, o_groups=2),
    GroupedAttention(4, None, 8),
  ]
  mixer['hierarchical'] = [Hierarchical(4, None, 8, block=4)]
  mixer['longformer'] = [Longformer(4, None, 8)]
  mixer['span_conv'] = [SpanConv(4, None, 8, span=3)]
  mixer['transient'] = [Transient(4, None, 8, pool=4)]
  mixer['linear'] = [LinearAttention(4), LinearAttention(4, 6, bias='qvo')]
  mixer['lstm'] = [LSTM(), LSTM(24, project=True, bias=False)]
  mixer['gated_conv'] = [GatedConv(3), GatedConv(2, bias=True)]
  mixer['rglru'] = [RGLRU(24, 4), RGLRU(24, 2, conv=2)]
  mixer['sum'] = [Sum(Attention(4, 2, 8), Mamba2(4, 8, 6), 0.5, 2.0, 0.7)]
  mixer['gated_delta'] = [GatedDelta(4, 2, 6, 8), GatedDelta(4, 4, 8, 8, conv=2)]
  mixer['mamba'] = [Mamba(24, 6, 4), Mamba(24, 6, 4, norm=RMSNorm(), bias=True, conv_bias=False)]
  mixer['mamba2'] = [
    Mamba2(4, 8, 6, 2),
    Mamba2(4, 8, 6, norm=None, bias=True, conv_bias=False, scales=(0.5, 2.0, 0.7, 1.5, 0.9)),
    Mamba2(4, 8, 6, norm_groups=2, gate_first=False, limits=(0.1, 0.9)),
  ]
  mixer['mla'] = [MLA(4, rank, 16, 8, 4, 12) for rank in (None, 24)]
  stack = {'repeated': [(False, (2,))], 'shared': [(True, (2,))], 'segments': [(False, (1, 1))]}
  return {
    'mixer': mixer,
    'topology': {'decoder': [_causal], 'encoder': [None], 'encdec': [{}, {'embed': Tokens(80)}]},
    'ffn': feeds,
    'residual': residual,
    'mtp': {'none': [None], **mtp},
    'stack': stack,
    'residual_layout': residual_layout,
    'relative': relative,
    'scaling': scaling,
    'mask': mask,
    'act': _rows('act'),
    'norm': norm,
    'residual_scale': _rows('residual_scale'),
    'absolute': absolute,
    'shared': _rows('relative', *OF_IMAGES),
    'kv_heads': {'all': [None], 'one': [1], 'two': [2]},
    'options': _OPTIONS,
    'adapter': {
      'none': _rows('adapter')['none'],
      'lora': [LoRA(4), LoRA(2, stable=True, targets=('k', 'o', 'up'))],
    },
    'embed': _EMBED,
    'head': _HEAD,
    'cache': cache,
    'attend': {
      'dense': [DenseAttention()],
      'blockwise': [Blockwise(4, 8)],
      'staircase': [Staircase(3), Staircase(2)],
      'pallas': [Pallas(8, 8, interpret=True)],
    },
  }


_norms = [row() for row in tables()['norm'].values() if not is_conditioned(row)]

#: Fields of attention that change what it does beyond its other parts.
_OPTIONS: dict[str, list] = {
  'plain': [{}, {'scale': 1.0}],
  'cap': [{'cap': 2.0}],
  'sink': [{'sink': True}],
  'bias': [{'bias': 'qvo'}],
  'gated': [{'gated': True}],
  'clip': [{'clip': 0.5}],
  'qk_norm': [
    {'qk_norm': n, 'qk_norm_over': over}
    for n, over in zip(_norms, itertools.cycle(('head', 'all', 'each')))
  ],
}
_EMBED: dict[str, list] = {
  'plain': [Tokens(64)],
  'all': [Tokens(64, 2.0, 0.5, types=2, norm=LayerNorm())],
  'narrow': [Tokens(64, dim=16), Tokens(64, types=2, norm=LayerNorm(), dim=16)],
  'rows': [Tokens(64, rows=FixNorm())],
}
_HEAD: dict[str, list] = {
  'tied': [Lm()],
  'untied': [Lm(tied=False, bias=True)],
  'capped': [Lm(cap=5.0, scale=0.5, power=-0.5)],
  'transform': [Lm(bias=True, transform=Transform())],
}

#: Factors that are nothing to a mixer without attention.
_OF_ATTENTION = ('scaling', 'relative', 'mask', 'shared', 'kv_heads', 'options', 'attend')


def _not_with(mixer) -> dict[str, tuple[str, ...]]:
  """What does not go with a mixer that looks at nobody, or at later tokens whatever its mask."""
  looks = any(f.name == 'relative' for f in dataclasses.fields(mixer))
  apart: dict[str, tuple[str, ...]] = {} if looks else dict.fromkeys(_OF_ATTENTION, ())
  apart |= {} if mixer.joined or looks else {'adapter': ('lora',)}
  return apart if mixer.causal else apart | {'mtp': ('sequential', 'parallel'), 'cache': ()}


#: Levels that do not stand in one model: without meaning (refused), or without a place for the
#: second.
_APART: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {
  **{('relative', name): {'scaling': ()} for name in tables()['relative'] if name not in ('rope', *OF_IMAGES)},
  **{('mixer', name): _not_with(row()) for name, row in tables()['mixer'].items() if name != 'mla'},
  ('relative', 'shaw-values'): {'scaling': (), 'attend': ('pallas',)},
  ('mixer', 'mla'): {'kv_heads': (), 'options': ('qk_norm', 'clip', 'gated')},
  ('topology', 'encoder'): {'cache': (), 'mtp': ('sequential', 'parallel'), 'attend': ('staircase',)},
  ('ffn', 'moe-expert_choice'): {'cache': (), 'mtp': ('sequential', 'parallel')},
  # Experts that choose tokens choose others after rounding, which a stream that is reconstructed
  # adds.
  ('residual', 'reversible'): {'residual_layout': ('post', 'adapted'), 'ffn': ('moe-expert_choice',)},
  # Grouped projections take no adapter.
  ('mixer', 'grouped'): {**_not_with(GroupedAttention()), 'adapter': ('lora',)},
  ('ffn', 'grouped_mlp'): {'adapter': ('lora',)},
  ('mtp', 'parallel'): {'stack': ('repeated', 'shared')},
  ('embed', 'narrow'): {'head': ('tied', 'capped')},
  # Compiled to be interpreted it takes long enough without what takes long and it is not asked with
  # (_MEETS).
  ('attend', 'pallas'): {
    'ffn': tuple(f'moe-{name}' for name in tables()['router']), 'stack': ('segments',),
    'mtp': ('sequential', 'parallel'), 'residual': ('dwa', 'dlcl', 'reversible'),
    'adapter': ('lora',),
  },
  # Sums over all tokens and channels grow by their number in every layer where nobody norms them:
  # gates are shut.
  ('residual_layout', 'unnormalised'): {'mixer': ('fourier',)},
}  # fmt: skip


#: What is asked with a few others only: factor, level or (factor, level) -> the factors that it is
#: to meet. A scaling is other numbers in a rotation; interpreted, a kernel for TPUs is slow to
#: compile. Recurrent mixers meet what handles their state.
_RECURRENT = ('topology', 'ffn', 'residual', 'mtp', 'stack', 'residual_layout', 'cache', 'adapter')
_RECURRENT_MIXERS = (
  'linear',
  'lstm',
  'gated_conv',
  'gated_delta',
  'mamba',
  'mamba2',
  'rglru',
  'sum',
)
_MEETS: dict[str | tuple[str, str], tuple[str, ...]] = {
  **{('mixer', name): _RECURRENT for name in _RECURRENT_MIXERS},
  'scaling': ('relative', 'mixer', 'topology', 'cache', 'attend'),
  'pallas': ('relative', 'shared', 'mask', 'mixer', 'kv_heads', 'options', 'topology'),
}


def _asked(a: tuple[str, str], b: tuple[str, str]) -> bool:
  """Whether level a is to meet level b."""
  for one, other in ((a, b), (b, a)):
    for name in (*one, one):
      if name in _MEETS and other[0] not in _MEETS[name]:
        return False
  return True


#: What takes longer to compile, and makes all that stands with it take longer: the logarithm of how
#: many times.
_DEAR = {
  **{('ffn', f'moe-{name}'): 0.6 for name in tables()['router']},
  ('topology', 'encdec'): 0.7, ('stack', 'segments'): 0.4, ('residual_layout', 'sandwich'): 0.3,
  ('attend', 'pallas'): 0.9, ('attend', 'blockwise'): 0.4, ('attend', 'staircase'): 0.3,
  ('mixer', 'mla'): 0.3, ('mixer', 'hierarchical'): 0.3, ('mtp', 'sequential'): 0.3,
  ('mtp', 'parallel'): 0.3,
}  # fmt: skip


def _backward(a: tuple[str, str], b: tuple[str, str]) -> bool:
  """Whether level a has a backward pass of its own that level b takes part in: autodiff joins all
  other pairs.
  """
  return a == ('residual', 'reversible') or (
    a[0] == 'attend' and a[1] != 'dense' and b[0] in _MEETS['pallas']
  )


def _apart(a: tuple[str, str], b: tuple[str, str]) -> bool:
  """Whether two levels are to be kept apart; () is every level of a factor."""
  not_with = _APART.get(a, {}).get(b[0])
  return not_with is not None and (not not_with or b[1] in not_with)


@functools.cache
def pairs() -> dict[str, 'Case']:
  """A few models, each with a run, in which every two rows of two kinds of part meet, and each
  meets each topology.

  A name lists the levels that are not the first of their factor.

  Some, in which every level stands once, are asked of a remat policy besides. Gradients are asked
  of these and of all pairs of which `_backward` says so, in the large group of every one."""
  levels = _levels()
  turn = {
    (factor, level): itertools.cycle(each)
    for factor, of in levels.items()
    for level, each in of.items()
  }
  chosen_rows = covering(
    {factor: list(of) for factor, of in levels.items()}, _apart, _asked, lambda a: _DEAR.get(a, 0.0)
  )
  policies = dict(
    zip(_few(chosen_rows), itertools.cycle(name for name in POLICIES if name != 'none'))
  )
  backward = {*policies, *(range(len(chosen_rows)) if groups.ALL else _few(chosen_rows, _backward))}
  found = {}
  for i, row in enumerate(chosen_rows):
    row = {factor: level for factor, level in row.items() if level is not None}
    chosen = {factor: next(turn[factor, level]) for factor, level in row.items()}
    run = Run(
      attend=chosen.get('attend', DenseAttention()), cache=chosen.get('cache', DenseCache())
    )
    named = ','.join(
      f'{factor}={level}' for factor, level in row.items() if level != next(iter(levels[factor]))
    )
    found[named or 'parts=plain'] = Case(
      zoo.tiny(_assembled(chosen)), run, policies.get(i), i in backward
    )
  assert len(found) == len(chosen_rows), 'two rows have one name'
  return found


def _few(rows: list[dict], meeting: Callable[..., bool] = lambda a, b: False) -> list[int]:
  """Few of the rows, by number, in which every level stands and every two that are to be `meeting`
  meet.
  """
  levels = [[level for level in row.items() if level[1] is not None] for row in rows]
  sets = [
    {*of, *(pair for pair in itertools.permutations(of, 2) if meeting(*pair))} for of in levels
  ]
  left, found = set().union(*sets), []
  while left:
    found.append(max(range(len(sets)), key=lambda i: len(sets[i] & left)))
    left -= sets[found[-1]]
  return found


def _causal(mask: Mask) -> Mask:
  """The mask of a decoder."""
  return mask if mask.causal or 'prefix' in mask.reads else mask & Causal()


def _assembled(chosen: dict) -> Model:
  """The model of these parts."""
  if 'scaling' in chosen:
    chosen = chosen | {
      'relative': dataclasses.replace(chosen['relative'], scaling=chosen['scaling'])
    }
  mixer, ffn, kv_heads = chosen['mixer'], chosen['ffn'], chosen.get('kv_heads')
  options = chosen.get('options', {})
  fields = {f.name for f in dataclasses.fields(mixer)}
  own = options | {'bias': 'qco'} if 'bias' in options and isinstance(mixer, MLA) else options
  own = own | {name: chosen[name] for name in ('relative', 'kv_heads') if name in chosen}
  act = chosen['act']
  inner = {'act': act} if hasattr(ffn, 'act') else {}
  if hasattr(ffn, 'expert'):
    inner = {'expert': dataclasses.replace(ffn.expert, act=act)}

  def block(mask: Mask | None, **more) -> Block:
    told = own if mask is None else own | {'mask': mask}
    here = dataclasses.replace(mixer, **{n: v for n, v in told.items() if n in fields})
    return Block(
      here,
      dataclasses.replace(ffn, **inner),
      chosen['norm'],
      chosen['residual_layout'],
      residual_scale=chosen['residual_scale'],
      **more,
    )

  mask, topology = chosen.get('mask'), chosen['topology']
  shared, repeats = chosen['stack']
  stack = lambda block, repeats: tuple(Segment((block,), n, shared) for n in repeats)
  common = {name: chosen[name] for name in ('absolute', 'norm', 'residual')}
  common |= {'shared_relative': chosen['shared']} if 'shared' in chosen else {}
  whole = (
    common
    | {name: chosen[name] for name in ('embed', 'mtp', 'adapter')}
    | {'heads': {'lm': chosen['head']}}
  )
  if topology is None:
    return Model(d_model=32, segments=stack(block(mask), repeats), **whole)
  seen = None if mask is None else _causal(mask)
  if topology is _causal:
    return Model(d_model=32, segments=stack(block(seen), repeats), **whole)
  reading = Tower(segments=stack(block(mask), (2,)), **common, **topology)
  cross = CrossAttention(4, kv_heads, 8, **{n: v for n, v in options.items() if n != 'gated'})
  return Model(
    d_model=32,
    segments=stack(block(seen, cross=cross), repeats),
    towers={'encoder': reading},
    **whole,
  )


def variants() -> dict[str, Model]:
  """Fields that no table has a row for and that go with some parts only, and ways to join parts."""
  glu, attention = Glu(48), Attention(4, 2, 8)
  local = Block(Attention(4, 1, 8, RoPE(), Window(3)), glu)
  return {
    'relative=longrope-factors': mixing(
      relative=RoPE(scaling=LongRoPE((1.0,) * 4, (1.0, 1.5, 2.0, 4.0), 8, 32))
    ),
    'relative=rope-far': mixing(relative=RoPE(far=4)),
    'mask=both': mixing(mask=Window(3) & Causal() & Segments()),
    'mask=prefix-of-3': mixing(mask=Prefix(3)),
    'mask=permutation-others': mixing(mask=Permutation(itself=False), sink=True),
    'mixer=one-head': mixing(heads=1, kv_heads=None, head_dim=32),
    'mixer=wide-heads': mixing(head_dim=12, bias='qkvo', relative=RoPE()),
    'mixer=rotate-first': mixing(qk_norm=RMSNorm(), rotate_first=True, relative=RoPE()),
    'mixer=length-scale': mixing(length_scale=LengthScale(0.5, 4), relative=RoPE()),
    'residual_layout=adapted-post': adapted(),
    'residual_layout=adapted-pre-own': adapted(pre=True, reads='own', inside=False),
    'residual_layout=adapted-plain': adapted(reads='none', inside=False),
    'second_ffn=pre': decoder(Block(attention, glu, second_ffn=Moe(8, Language(), Mlp(16)))),
    'ffn=moe-capacity': decoder(Block(attention, Moe(4, capacity=0.5, expert=Glu(48, bias=True)))),
    'ffn=moe-slots': decoder(Block(attention, Moe(4, TopK(k=1, renormalize=False), glu, slots=2))),
    'mtp=chain-of-2': decoder(mtp=SequentialMTP(2, hidden_first=True), shared_relative=T5Bias()),
    'mtp=two-heads': dataclasses.replace(
      decoder(mtp=ParallelMTP(2), heads={'lm': Lm(tied=False)}),
      segments=(Segment((Block(attention, glu),)),) * 2,
    ),
    'pattern=local-global': dataclasses.replace(
      decoder(),
      segments=(
        Segment((local, Block(attention, glu)), 2),
        Segment((Block(attention, Mlp(48)),), 1),
      ),
    ),
  }


def models(others: list[Model]) -> dict[str, Model]:
  """The models of the zoo, shrunk, in which some field of a part says what it says nowhere else.

  What every other one is made of has been asked, and all pairs of parts; the numbers of families
  are in tests/hub."""
  met: set = set().union(*map(_said, others))
  found = {}
  for name in zoo.names():
    spec = zoo.tiny(zoo.get(name))
    if not _of_text(spec):
      continue
    if (own := set(_said(spec))) - met:
      found[f'zoo={name}'] = spec
      met |= own
  return found


def others() -> dict[str, Model]:
  """Models that read something other than text: those of the zoo, of each size one, and parts for
  them alone.
  """
  found: dict[Model, str] = {}
  for name in zoo.names():
    spec = zoo.tiny(zoo.get(name))
    if not _of_text(spec):
      found.setdefault(spec, f'zoo={name}')
  image = zoo.tiny(zoo.get('vit-base-16'))
  unnormalised = dataclasses.replace(
    image, embed=dataclasses.replace(image.embed, class_token=False, positions='none')
  )
  attention = Attention(4, mask=Mask())
  merged = (
    Segment((Block(attention, Mlp(48)),)),
    Segment((Block(attention, Mlp(48)),), resample=Merge(), d_model=48),
  )
  mean = {'classify': Classify(5, 'mean')}
  return {name: spec for spec, name in found.items()} | {
    'relative=axial': dataclasses.replace(unnormalised, shared_relative=Axial(), heads=mean),
    'resample=merge': dataclasses.replace(unnormalised, segments=merged, heads=mean),
    'positions=sincos': dataclasses.replace(
      image, embed=dataclasses.replace(image.embed, positions='sincos')
    ),
    'size=2x4x4': dataclasses.replace(
      image, embed=Patches((2, 4, 4), (4, 8, 16), norm=LayerNorm())
    ),
  }


def _of_text(spec: Model) -> bool:
  """Whether all towers read tokens."""
  return all(spec.tower(name).vocab for name in ('', *spec.towers))


def _said(node):
  """(part, field, what stands there) of all parts of a spec; of numbers only that there is one."""
  if isinstance(node, tuple):
    for n in node:
      yield from _said(n)
  elif isinstance(node, Mapping):
    yield from _said(tuple(node.values()))
  elif dataclasses.is_dataclass(node):
    for f in dataclasses.fields(node):
      value = getattr(node, f.name)
      number = isinstance(value, int | float | tuple) and not isinstance(value, bool)
      yield (
        type(node).__name__,
        f.name,
        type(value).__name__
        if number or dataclasses.is_dataclass(value) or isinstance(value, Mapping)
        else value,
      )
      yield from _said(value)


def all_cases() -> dict[str, Case]:
  """Every model that is asked."""
  found = pairs() | {
    name: Case(spec, Run(attend=DenseAttention())) for name, spec in variants().items()
  }
  rest = models([case.spec for case in found.values()])
  return found | {name: Case(spec, Run(attend=DenseAttention())) for name, spec in rest.items()}
