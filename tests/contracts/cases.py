"""All cases of the contracts, from the tables of parts: new table entries are included."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import itertools
from typing import NamedTuple

from tests import groups
from tests.contracts.covering import covering
from tests.contracts.levels import COST, custom_backward, excludes, levels, must_meet
from tfm import zoo
from tfm.model.remat import POLICIES
from tfm.model.spec import Block, Model, Segment, Tower
from tfm.parts.attend import DenseAttention
from tfm.parts.cache import DenseCache
from tfm.parts.context import Run
from tfm.parts.cross import CrossAttention
from tfm.parts.embed.patches import Patches
from tfm.parts.embed.per_layer import PerLayer
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu, Mlp, Moe
from tfm.parts.head.classify import Classify
from tfm.parts.head.lm import Lm
from tfm.parts.length_scale import LengthScale
from tfm.parts.mask import (
  Causal,
  Mask,
  Permutation,
  Prefix,
  Segments,
  Window,
)
from tfm.parts.mixer import (
  MLA,
  Attention,
  Borrowed,
  Disentangled,
)
from tfm.parts.mtp import ParallelMTP, SequentialMTP
from tfm.parts.norm import LayerNorm, RMSNorm
from tfm.parts.relative import Axial, RoPE, T5Bias
from tfm.parts.relative.scaling import LongRoPE
from tfm.parts.resample.merge import Merge
from tfm.parts.residual import AltUp
from tfm.parts.residual_layout import Adapted
from tfm.parts.rounding import Ternary
from tfm.parts.router import Language, TopK


class Case(NamedTuple):
  """A model and the options of its run.

  Attributes:
    spec: the model.
    run: attention kernel and cache.
    remat: remat policy that is compared with the plain run, or None.
    backward: whether gradients are computed.
  """

  spec: Model
  run: Run
  remat: str | None = None
  backward: bool = True


def decoder(block: Block | None = None, **fields) -> Model:
  """Return two causal layers with 4 heads and 2 key/value heads."""
  return Model(
    Tokens(64), 32, (Segment((block or Block(Attention(4, 2, 8), Glu(48)),), 2),), **fields
  )


def adapted(**fields) -> Model:
  """Return a decoder with an adapter after the feed-forward, in a layout with these fields."""
  layout = Adapted(**fields)
  return decoder(Block(Attention(4, 2, 8), Glu(48), LayerNorm(), layout, second_ffn=Mlp(16)))


def mixing(**fields) -> Model:
  """Return a decoder with these fields of attention."""
  return decoder(Block(dataclasses.replace(Attention(4, 2, 8), **fields), Glu(48)))


def disentangled(**fields) -> Model:
  """Return a decoder with these fields of disentangled attention."""
  return decoder(Block(dataclasses.replace(Disentangled(4, 2, 8), **fields), Glu(48)))


@functools.cache
def pairs() -> dict[str, 'Case']:
  """Return models in which every two parts of different kinds occur together.

  The name of a case lists the levels that are not the first of their factor. Some cases, which
  contain every level, also have a remat policy. These cases have gradients, and so have the pairs
  with `levels.custom_backward`. In the large group, all cases have gradients.
  """
  factors = levels()
  names = {factor: list(of) for factor, of in factors.items()}
  turn = {}
  for factor, of in factors.items():
    turn |= {(factor, level): itertools.cycle(each) for level, each in of.items()}
  combinations = covering(names, excludes, must_meet, lambda level: COST.get(level, 0.0))
  remat = itertools.cycle(name for name in POLICIES if name != 'none')
  policies = dict(zip(_cover(combinations), remat, strict=False))
  backward = {*policies, *_cover(combinations, custom_backward)}
  if groups.ALL:
    backward = set(range(len(combinations)))
  cases = {}
  for i, combination in enumerate(combinations):
    chosen_levels = {f: level for f, level in combination.items() if level is not None}
    chosen = {f: next(turn[f, level]) for f, level in chosen_levels.items()}
    attend, cache = chosen.get('attend', DenseAttention()), chosen.get('cache', DenseCache())
    name = ','.join(f'{f}={level}' for f, level in chosen_levels.items() if level != names[f][0])
    spec = zoo.tiny(_assembled(chosen))
    run = Run(attend=attend, cache=cache)
    cases[name or 'parts=plain'] = Case(spec, run, policies.get(i), i in backward)
  assert len(cases) == len(combinations), 'two combinations have one name'
  return cases


def _cover(
  combinations: list[dict], required: Callable[..., bool] = lambda a, b: False
) -> list[int]:
  """Return the indices of few combinations that contain every level and every required pair."""
  sets = []
  for combination in combinations:
    chosen = [level for level in combination.items() if level[1] is not None]
    sets.append({*chosen, *(pair for pair in itertools.permutations(chosen, 2) if required(*pair))})
  left, cover = set().union(*sets), []
  while left:
    cover.append(max(range(len(sets)), key=lambda i: len(sets[i] & left)))
    left -= sets[cover[-1]]
  return cover


def _causal(mask: Mask) -> Mask:
  """Return the mask of a decoder."""
  return mask if mask.causal or 'prefix' in mask.reads else mask & Causal()


def _assembled(chosen: dict) -> Model:
  """Return the model with these parts."""
  if 'scaling' in chosen:
    relative = dataclasses.replace(chosen['relative'], scaling=chosen['scaling'])
    chosen = chosen | {'relative': relative}
  mixer, ffn, kv_heads = chosen['mixer'], chosen['ffn'], chosen.get('kv_heads')
  options = chosen.get('options', {})
  values = {name: chosen[name] for name in ('relative', 'kv_heads') if name in chosen} | options
  if 'bias' in options and isinstance(mixer, MLA):
    values['bias'] = 'qco'
  names = {f.name for f in dataclasses.fields(mixer)}
  act = chosen['act']
  inner = {'act': act} if hasattr(ffn, 'act') else {}
  if hasattr(ffn, 'expert'):
    inner = {'expert': dataclasses.replace(ffn.expert, act=act)}

  def block(mask: Mask | None, **more) -> Block:
    fields = values if mask is None else values | {'mask': mask}
    return Block(
      dataclasses.replace(mixer, **{n: v for n, v in fields.items() if n in names}),
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
  fields = common | {name: chosen[name] for name in ('embed', 'mtp', 'adapter')}
  fields |= {'d_model': 32, 'heads': {'lm': chosen['head']}}
  if topology == 'encoder':
    return Model(segments=stack(block(mask), repeats), **fields)
  causal = None if mask is None else _causal(mask)
  if topology == 'decoder':
    return Model(segments=stack(block(causal), repeats), **fields)
  encoder = Tower(segments=stack(block(mask), (2,)), **common, **topology)
  cross = CrossAttention(4, kv_heads, 8, **{n: v for n, v in options.items() if n != 'gated'})
  segments = stack(block(causal, cross=cross), repeats)
  return Model(segments=segments, towers={'encoder': encoder}, **fields)


def variants() -> dict[str, Model]:
  """Return models with fields that belong to some parts only, and with other structures."""
  glu, attention = Glu(48), Attention(4, 2, 8)
  lent = Attention(4, 2, 8, RoPE(), lends='kv', v_norm=RMSNorm(scale=False))
  borrowed = Borrowed(4, 2, 8, RoPE(), qk_norm=RMSNorm())
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
    'mixer=out-norm': mixing(out_norm=RMSNorm(), gated=True),
    'ffn=glu-norm': decoder(Block(attention, Glu(48, norm=RMSNorm()))),
    'mixer=borrowed-later': dataclasses.replace(
      decoder(), segments=(Segment((Block(lent, glu),), 2), Segment((Block(borrowed, glu),), 2))
    ),
    'mixer=borrowed-in-turns': dataclasses.replace(
      decoder(), segments=(Segment((Block(lent, glu), Block(borrowed, glu)), 2),)
    ),
    'residual_layout=adapted-post': adapted(),
    'residual_layout=adapted-pre-own': adapted(pre=True, reads='own', inside=False),
    'residual_layout=adapted-plain': adapted(reads='none', inside=False),
    'second_ffn=pre': decoder(Block(attention, glu, second_ffn=Moe(8, Language(), Mlp(16)))),
    'embed=per-layer': dataclasses.replace(
      decoder(residual=AltUp(3, inputs=6)), embed=PerLayer(64, layer_dim=6)
    ),
    'ffn=glu-sparse': decoder(Block(attention, Glu(48, sparsity=0.5))),
    'rounding=ternary': decoder(Block(attention, glu, rounding=Ternary())),
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
  """Return small zoo models with a field value that no other case has.

  Tests in tests/hub compare the numbers of all families.
  """
  covered: set = set().union(*map(field_values, others))
  chosen = {}
  for name in zoo.names():
    spec = zoo.tiny(zoo.get(name))
    if _of_text(spec) and (values := set(field_values(spec))) - covered:
      chosen[f'zoo={name}'] = spec
      covered |= values
  return chosen


def others() -> dict[str, Model]:
  """Return models with other inputs than text, from the zoo and with parts for images."""
  names: dict[Model, str] = {}
  for name in zoo.names():
    spec = zoo.tiny(zoo.get(name))
    if not _of_text(spec):
      names.setdefault(spec, f'zoo={name}')
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
  return {name: spec for spec, name in names.items()} | {
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
  """Return whether all towers have token ids."""
  return all(spec.tower(name).vocab for name in ('', *spec.towers))


def field_values(node):
  """Yield (part, field, value) of all parts of a spec, with the type in place of numbers."""
  if isinstance(node, tuple):
    for n in node:
      yield from field_values(n)
  elif isinstance(node, Mapping):
    yield from field_values(tuple(node.values()))
  elif dataclasses.is_dataclass(node):
    for f in dataclasses.fields(node):
      value = getattr(node, f.name)
      number = isinstance(value, int | float | tuple) and not isinstance(value, bool)
      nested = dataclasses.is_dataclass(value) or isinstance(value, Mapping)
      shown = type(value).__name__ if number or nested else value
      yield type(node).__name__, f.name, shown
      yield from field_values(value)


def all_cases() -> dict[str, Case]:
  """Return all cases by name."""
  run = Run(attend=DenseAttention())
  cases = pairs() | {name: Case(spec, run) for name, spec in variants().items()}
  published = models([case.spec for case in cases.values()])
  return cases | {name: Case(spec, run) for name, spec in published.items()}
