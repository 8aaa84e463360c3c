"""Every attention mask. To add one, write a file and add it to `TABLE`."""

from tfm.core.registry import Table
from tfm.parts.mask.base import Both, Mask
from tfm.parts.mask.bigbird import BigBird
from tfm.parts.mask.blocks import Blocks
from tfm.parts.mask.causal import Causal
from tfm.parts.mask.chunks import Chunks
from tfm.parts.mask.fixed import Fixed
from tfm.parts.mask.lambda_shape import Lambda
from tfm.parts.mask.permutation import Permutation
from tfm.parts.mask.prefix import Prefix
from tfm.parts.mask.segments import Segments
from tfm.parts.mask.strided import Strided
from tfm.parts.mask.window import Window

TABLE = Table(
  'mask',
  bigbird=BigBird,
  blocks=Blocks,
  both=Both,
  causal=Causal,
  chunks=Chunks,
  fixed=Fixed,
  full=Mask,
  **{'lambda': Lambda},
  permutation=Permutation,
  prefix=Prefix,
  segments=Segments,
  strided=Strided,
  window=Window,
)
"""Attention masks: predicates on the token info of queries and keys, combined with `&`."""
