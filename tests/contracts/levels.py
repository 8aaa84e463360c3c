"""Levels of every factor of a model, from the tables of parts, and their exclusions."""

import dataclasses
import importlib
import itertools
import pathlib

from tfm.core.registry import Table
import tfm.parts
from tfm.parts.absolute import Sinusoidal
from tfm.parts.adapter import LoRA
from tfm.parts.attend import Blockwise, DenseAttention, Pallas, Staircase
from tfm.parts.cache import Int8Cache, PagedCache, RingCache
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu, GroupedMlp, Mlp, Moe
from tfm.parts.head.lm import Lm, Transform
from tfm.parts.mask import (
  BigBird,
  Blocks,
  Chunks,
  Fixed,
  Lambda,
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
  Lightning,
  LinearAttention,
  Longformer,
  Mamba,
  Mamba2,
  SpanConv,
  Sum,
  Transient,
)
from tfm.parts.mixer.disentangled import Distances
from tfm.parts.norm import FixNorm, LayerNorm, RMSNorm
from tfm.parts.relative import ALiBi, RoPE, Shaw, Temperature
from tfm.parts.relative.scaling import Yarn
from tfm.parts.residual import AltUp, Dlcl, Dwa
from tfm.parts.residual_layout import Normed, Parallel
from tfm.parts.router import Grouped, SparseMixer, TopK


def tables() -> dict[str, Table]:
  """Return the table of every kind of part, by its folder in tfm/parts."""
  root = pathlib.Path(tfm.parts.__file__).parent
  folders = sorted(p.parent.relative_to(root) for p in root.rglob('base.py'))
  return {str(f): importlib.import_module('.'.join(['tfm.parts', *f.parts])).TABLE for f in folders}


def is_conditioned(row: type) -> bool:
  """Return whether a part needs a condition; test_inputs_and_heads.py covers these."""
  return getattr(row, 'conditioned', False)


def _parts(kind: str, *without: str) -> dict[str, list]:
  """Return every part of a kind with default fields, the simplest first.

  The first level of a factor is used most often.
  """
  plain = {'none', 'plain', 'pre', 'rms', 'relu', 'causal', 'dense'}
  table = tables()[kind]
  names = [name for name in table if name not in without and not is_conditioned(table[name])]
  return {name: [table[name]()] for name in sorted(names, key=lambda name: name not in plain)}


#: Relative positions that need image patches; `cases.others` has models with them.
OF_IMAGES = ('axial',)


def levels() -> dict[str, dict[str, list]]:
  """Return factor -> level -> values. The values of a level are used in turn."""
  scaled = Glu(48, limit=0.5, shift=1.0, gate_scale=2.0, out_scale=0.5)
  feeds = {'glu': [Glu(48), Glu(48, bias=True), scaled], 'mlp': [Mlp(48), Mlp(48, bias=False)]}
  feeds |= {f'moe-{name}': [Moe(8, row(), Glu(48))] for name, row in tables()['router'].items()}
  feeds |= {name: [row()] for name, row in tables()['ffn'].items() if name not in (*feeds, 'moe')}
  # With a small jitter, a weight can be 1 without a gradient.
  feeds['moe-sparse_mixer'] = [Moe(8, SparseMixer(jitter=jitter), Glu(48)) for jitter in (2.0, 1.0)]
  feeds['moe-top_k'] += [
    Moe(4, TopK(k=1, renormalize=False), Mlp(48), Glu(48)),
    Moe(4, TopK(bias=True), Glu(48), Glu(48), shared_gate=True),
    Moe(4, TopK(k=1, score='sigmoid', renormalize=False), Glu(48), scaled='input'),
  ]
  grouped = Grouped(0, 0, 2, 'softmax', False, 16.0, group_score='max', rate=None)
  feeds['moe-grouped'] += [Moe(8, grouped, Glu(48))]
  relative = _parts('relative', *OF_IMAGES)
  relative['rope'] += [RoPE(layout='interleaved'), RoPE(fraction=0.5)]
  relative['alibi'] += [ALiBi(4.0, 0.3)]
  relative['temperature'] = [Temperature(3, 0.5)]
  relative['shaw-values'] = [Shaw(values=True)]
  scaling = _parts('relative/scaling')
  scaling['yarn'] += [Yarn(4.0, 8, mscale=0.7, mscale_all=0.7)]
  # Attention combines every mask with `segments` by `both`.
  mask = _parts('mask', 'both', 'segments')
  mask['window'] = [Window(3), Window(2, ahead=True), Window(2, step=3)]
  mask['strided'] += [Strided(4)]
  mask['fixed'] += [Fixed(4, 1)]
  mask['lambda'] += [Lambda(2, 3)]
  mask['chunks'] = [Chunks(4), Chunks(5)]
  mask['bigbird'] += [BigBird(1, 2, 12)]
  mask['blocks'] += [Blocks(('100', '110', '011'), 4)]
  norm = _parts('norm')
  norm['rms'] += [RMSNorm(one_plus=True, scale_first=True), RMSNorm(scale=False)]
  norm['layer'] += [
    LayerNorm(bias=False),
    LayerNorm(one_plus=True),
    LayerNorm(bias=False, scale=False),
  ]
  absolute, residual_layout, residual, mtp = (
    _parts(kind) for kind in ('absolute', 'residual_layout', 'residual', 'mtp')
  )
  absolute['sinusoidal'] += [Sinusoidal('halves'), Sinusoidal('t2t')]
  residual_layout['normed'] += [Normed((0.7, 1.2), (1.5, 0.5))]
  residual_layout['parallel'] += [Parallel(norms_per_branch=True)]
  residual['altup'] += [AltUp(3)]
  residual['dwa'] += [Dwa(2, 2)]
  residual['dlcl'] += [Dlcl(RMSNorm())]
  cache = _parts('cache')
  cache['ring'] += [RingCache(2)]
  cache['paged'] += [PagedCache(4)]
  cache['int8'] += [Int8Cache(RingCache())]
  mixer = _parts('mixer', 'borrowed') | {'attention': [Attention(4, None, 8)]}
  feeds['grouped_mlp'] = [GroupedMlp(48), GroupedMlp(48, up_groups=1, down_groups=2)]
  # A small scale keeps the softmax from saturating without norms.
  mixer['bigbird'] = [BigBirdAttention(4, None, 8, block=1, random=1, scale=0.02)]
  mixer['bottleneck'] = [
    Bottleneck(16, Attention(4, 2, 8), 24, ffns=2),
    Bottleneck(16, Attention(4), 24, ffns=1, norm=LayerNorm(), shared=False),
  ]
  mixer['global_local'] = [GlobalLocal(4, None, 8, block=4, shift=2)]
  mixer['grouped'] = [
    GroupedAttention(4, None, 8, k_groups=2, v_groups=1, o_groups=2),
    GroupedAttention(4, None, 8),
  ]
  mixer['span_conv'] = [SpanConv(4, None, 8, span=3)]
  mixer['disentangled'] = [
    Disentangled(4, None, 8),
    Disentangled(4, None, 8, distances=Distances(4, 10, LayerNorm()), terms=('p2c',), own=True),
    Disentangled(4, None, 8, distances=Distances(3), bias='qv', own=True),
  ]
  mixer['hierarchical'] = [Hierarchical(4, None, 8, block=4)]
  mixer['longformer'] = [Longformer(4, None, 8)]
  mixer['transient'] = [Transient(4, None, 8, pool=4)]
  mixer['linear'] = [LinearAttention(4), LinearAttention(4, 6, bias='qvo')]
  mixer['lightning'] = [Lightning(4), Lightning(4, 6)]
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
    'topology': {
      'decoder': ['decoder'],
      'encoder': ['encoder'],
      'encdec': [{}, {'embed': Tokens(80)}],
    },
    'ffn': feeds,
    'residual': residual,
    'mtp': {'none': [None], **mtp},
    'stack': stack,
    'residual_layout': residual_layout,
    'relative': relative,
    'scaling': scaling,
    'mask': mask,
    'act': _parts('act'),
    'norm': norm,
    'residual_scale': _parts('residual_scale'),
    'absolute': absolute,
    'shared': _parts('relative', *OF_IMAGES),
    'kv_heads': {'all': [None], 'one': [1], 'two': [2]},
    'options': _OPTIONS,
    'adapter': {
      'none': _parts('adapter')['none'],
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

#: Fields of attention that are not parts.
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

#: Factors without a meaning for a mixer without attention.
_OF_ATTENTION = ('scaling', 'relative', 'mask', 'shared', 'kv_heads', 'options', 'attend')


def _excluded_by(mixer) -> dict[str, tuple[str, ...]]:
  """Return the levels that a mixer without attention, or with later tokens, excludes."""
  attends = any(f.name == 'relative' for f in dataclasses.fields(mixer))
  excluded: dict[str, tuple[str, ...]] = {} if attends else dict.fromkeys(_OF_ATTENTION, ())
  if not mixer.joined and not attends:
    excluded['adapter'] = ('lora',)
  return excluded if mixer.causal else excluded | {'mtp': ('sequential', 'parallel'), 'cache': ()}


#: `borrowed` needs a layer that lends, so only `cases.variants` has it.
_MIXERS = [name for name in tables()['mixer'] if name != 'borrowed']
_NOT_ROTARY = [name for name in tables()['relative'] if name not in ('rope', *OF_IMAGES)]
#: Level -> factor -> levels that one model cannot have with it (an empty tuple: all levels of the
#: factor). They raise an error, or the level has no place for the other.
_EXCLUDED: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {
  **{('relative', name): {'scaling': ()} for name in _NOT_ROTARY},
  **{('mixer', name): _excluded_by(tables()['mixer'][name]()) for name in _MIXERS},
  ('relative', 'shaw-values'): {'scaling': (), 'attend': ('pallas',)},
  ('mixer', 'mla'): {'kv_heads': (), 'options': ('qk_norm', 'clip', 'gated')},
  ('topology', 'encoder'): {
    'cache': (), 'mtp': ('sequential', 'parallel'), 'attend': ('staircase',)
  },
  ('ffn', 'moe-expert_choice'): {'cache': (), 'mtp': ('sequential', 'parallel')},
  # A reconstructed stream has rounding errors, after which experts can choose other tokens.
  ('residual', 'reversible'): {
    'residual_layout': ('post', 'normed', 'laurel', 'adapted'), 'ffn': ('moe-expert_choice',)
  },
  ('mtp', 'parallel'): {'stack': ('repeated', 'shared')},
  ('embed', 'narrow'): {'head': ('tied', 'capped')},
  # The interpreted kernel is slow to compile, so it is not combined with slow parts.
  ('attend', 'pallas'): {
    'ffn': tuple(f'moe-{name}' for name in tables()['router']), 'stack': ('segments',),
    'mtp': ('sequential', 'parallel'), 'residual': ('dwa', 'dlcl', 'reversible'),
    'adapter': ('lora',),
  },
  # Without norms, sums over all tokens and channels grow with every layer and close all gates.
  ('residual_layout', 'unnormalised'): {'mixer': ('fourier',)},
  # Grouped projections take no adapter.
  ('mixer', 'grouped'): {**_excluded_by(GroupedAttention()), 'adapter': ('lora',)},
  ('ffn', 'grouped_mlp'): {'adapter': ('lora',)},
  # This norm shortens short vectors; a stream that it normalises before every branch vanishes.
  ('residual_layout', 'normed'): {'norm': ('capsule',)},
}  # fmt: skip


#: The factors that recurrent mixers must be combined with: parts that use their state.
_RECURRENT = ('topology', 'ffn', 'residual', 'mtp', 'stack', 'residual_layout', 'cache', 'adapter')
_RECURRENT_MIXERS = (
  'linear',
  'lightning',
  'lstm',
  'gated_conv',
  'gated_delta',
  'mamba',
  'mamba2',
  'rglru',
  'sum',
)
#: Factor, level or (factor, level) -> the only factors that it must be combined with. A scaling
#: only changes numbers of a rotation, and the interpreted TPU kernel is slow to compile.
MEETS: dict[str | tuple[str, str], tuple[str, ...]] = {
  **{('mixer', name): _RECURRENT for name in _RECURRENT_MIXERS},
  'scaling': ('relative', 'mixer', 'topology', 'cache', 'attend'),
  'pallas': ('relative', 'shared', 'mask', 'mixer', 'kv_heads', 'options', 'topology'),
}


def must_meet(a: tuple[str, str], b: tuple[str, str]) -> bool:
  """Return whether two levels must occur together."""
  for one, other in ((a, b), (b, a)):
    for name in (*one, one):
      if name in MEETS and other[0] not in MEETS[name]:
        return False
  return True


#: Logarithm of the factor by which a level increases the compile time of a model.
COST = {
  **{('ffn', f'moe-{name}'): 0.6 for name in tables()['router']},
  ('topology', 'encdec'): 0.7, ('stack', 'segments'): 0.4, ('residual_layout', 'sandwich'): 0.3,
  ('attend', 'pallas'): 0.9, ('attend', 'blockwise'): 0.4, ('attend', 'staircase'): 0.3,
  ('mixer', 'mla'): 0.3, ('mixer', 'hierarchical'): 0.3, ('mtp', 'sequential'): 0.3,
  ('mtp', 'parallel'): 0.3,
}  # fmt: skip


def custom_backward(a: tuple[str, str], b: tuple[str, str]) -> bool:
  """Return whether level a has a custom backward pass that level b takes part in."""
  kernel = a[0] == 'attend' and a[1] != 'dense'
  return a == ('residual', 'reversible') or (kernel and b[0] in MEETS['pallas'])


def excludes(a: tuple[str, str], b: tuple[str, str]) -> bool:
  """Return whether two levels exclude each other."""
  not_with = _EXCLUDED.get(a, {}).get(b[0])
  return not_with is not None and (not not_with or b[1] in not_with)
