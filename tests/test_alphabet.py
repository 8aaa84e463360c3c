"""Suffixes of names give shapes: `x_BTD` has three axes, and a letter one size in a function."""

import re
import sys

import jax
import jax.numpy as jnp
import pytest

from tfm.core.axes import AXES
from tfm.model import cache as cache_lib
from tfm.model import spec as s
from tfm.model import transformer
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.cross.attention import CrossAttention
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.linear import LinearAttention
from tfm.parts.mixer.lstm import LSTM
from tfm.parts.mixer.mla import MLA
from tfm.parts.mtp.sequential import SequentialMTP
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.alibi import ALiBi
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.t5 import T5Bias

NAME = re.compile(r'^[a-z][A-Za-z0-9]*_([A-Zdh1]{1,6})$')
TOK_BT = jnp.arange(12, dtype=jnp.int32).reshape(2, 6)


def watch(run):
  """Run `run()`; return the number of suffixed arrays seen in tfm, and a sentence per error."""
  seen, wrong = 0, set()

  def look(frame, event, _):
    nonlocal seen
    where = frame.f_globals.get('__name__', '')
    if event != 'return' or not where.startswith('tfm.'):
      return
    sizes: dict[str, int] = {}
    for name, value in list(frame.f_locals.items()):
      match = NAME.match(name)
      if (
        not match or not isinstance(value, jax.Array) or not set(match[1]) <= {*AXES, 'd', 'h', '1'}
      ):
        continue
      seen += 1
      at = f'{where}.{frame.f_code.co_name}: {name}'
      if value.ndim != len(match[1]):
        wrong.add(f'{at} has shape {value.shape}')
        continue
      for letter, size in zip(match[1], value.shape, strict=True):
        if letter == '1' and size != 1:
          wrong.add(f'{at} has shape {value.shape}')
        elif letter != '1' and sizes.setdefault(letter, size) not in (size, 1) and size != 1:
          wrong.add(f'{at} has {letter}={size}, another name in the function {sizes[letter]}')

  before = sys.getprofile()
  sys.setprofile(look)
  try:
    run()
  finally:
    sys.setprofile(before)
  return seen, sorted(wrong)


def decoder(**attention):
  block = s.Block(Attention(4, 2, 12, **attention), Mlp(40, GeluTanh()), LayerNorm())
  return s.Model(Tokens(64), 32, (s.Segment((block,), 3),))


ENCDEC = s.Model(
  Tokens(64, types=2),
  32,
  (s.Segment((s.Block(Attention(4), cross=CrossAttention(4)),), 2),),
  shared_relative=T5Bias(),
  towers={
    'encoder': s.Tower(
      segments=(s.Segment((s.Block(Attention(4, mask=Mask())),), 2),), shared_relative=T5Bias()
    )
  },
  heads={'lm': Lm(bias=True)},
)


RECURRENT = s.Model(
  Tokens(64), 32, (s.Segment((s.Block(LSTM(40, project=True)), s.Block(LinearAttention(4, 12)))),)
)
LATENT = s.Model(
  Tokens(64), 32, (s.Segment((s.Block(MLA(4, 20, 16, 8, 4, 12)),), 2),), mtp=SequentialMTP()
)


@pytest.mark.parametrize(
  'spec',
  [
    LATENT, RECURRENT, decoder(relative=RoPE(), sink=True), decoder(relative=ALiBi(), cap=5.0),
    decoder(relative=T5Bias()), ENCDEC,
  ],
)  # fmt: skip
def test_suffixed_names_have_the_axes_of_their_letters(spec):
  inputs = {'input_ids': TOK_BT} | ({'decoder_input_ids': TOK_BT[:, :5]} if spec.encoder else {})

  def said(p, key=jax.random.key(0)):
    out = transformer.apply(spec, p, key=key, mtp=True, **inputs)
    return [out['logits'], *out.get('mtp_logits', ())]

  def everything(key):
    params = transformer.init(spec, key)
    cache = cache_lib.init_cache(spec, 2, 16, source=6)
    out = transformer.apply(spec, params, cache=cache, **inputs)
    loss = lambda p: sum(x.var() for x in said(p))
    return out, jax.grad(loss)(params)

  seen, wrong = watch(lambda: jax.eval_shape(everything, jax.random.key(0)))
  assert seen > 100
  assert not wrong, '\n'.join(wrong)


def test_watch_detects_a_wrong_suffix():
  body = '  x_BT = jnp.ones(3)\n  y_B, z_B = jnp.ones(2), jnp.ones(4)\n'
  source = f'import jax.numpy as jnp\ndef f():\n{body}'
  module = {'__name__': 'tfm.wrong'}
  exec(source, module)
  _, wrong = watch(module['f'])
  assert [w.split(': ')[1] for w in wrong] == [
    'x_BT has shape (3,)',
    'z_B has B=4, another name in the function 2',
  ]
