"""Table of input layers. To add one, add a file and a table entry."""

from tfm.core.registry import Table
from tfm.parts.embed.base import Embed as Embed
from tfm.parts.embed.codes import Codes
from tfm.parts.embed.conditioned import Conditioned
from tfm.parts.embed.features import Features
from tfm.parts.embed.frames import Frames
from tfm.parts.embed.globals import Globals
from tfm.parts.embed.interleave import Interleave
from tfm.parts.embed.latents import Latents
from tfm.parts.embed.patches import Patches
from tfm.parts.embed.per_layer import PerLayer
from tfm.parts.embed.splice import Splice
from tfm.parts.embed.tokens import Tokens
from tfm.parts.embed.trigrams import Trigrams
from tfm.parts.embed.waveform import Waveform

TABLE = Table(
  'input layer',
  codes=Codes,
  conditioned=Conditioned,
  features=Features,
  frames=Frames,
  globals=Globals,
  interleave=Interleave,
  latents=Latents,
  patches=Patches,
  per_layer=PerLayer,
  splice=Splice,
  tokens=Tokens,
  trigrams=Trigrams,
  waveform=Waveform,
)
