"""DeepSeek-V2 (2024) and V3 (2024): latent attention, fine-grained experts beside shared ones, dense layers first."""

from tfm.model.spec import Block, Head, Model, Segment
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.mla import MLA
from tfm.parts.mtp.base import MTP
from tfm.parts.mtp.sequential import SequentialMTP
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.scaling.yarn import Yarn
from tfm.parts.router.base import Router
from tfm.parts.router.grouped import Grouped
from tfm.parts.router.top_k import TopK
from tfm.zoo.entry import Entry

PAPER_2 = 'DeepSeek-V2, arXiv:2405.04434'
PAPER_3 = 'DeepSeek-V3 Technical Report, arXiv:2412.19437'


def deepseek(
  depth: int,
  dense: int,
  d: int,
  attention: MLA,
  d_ff: int,
  vocab: int,
  experts: Moe,
  mtp: MTP | None = None,
) -> Model:
  """Pre-norm by root mean square; the first `dense` layers have one SwiGLU of width `d_ff`, the others experts."""
  norm = RMSNorm(1e-6)
  segments = (
    Segment((Block(attention, Glu(d_ff), norm),), dense),
    Segment((Block(attention, experts, norm),), depth - dense),
  )
  return Model(vocab, d, segments, norm=norm, head=Head(tied=False), init=Normal(0.006, depth_scaled=False), mtp=mtp)


def _latent(heads: int, q_rank: int | None, mscale: float) -> MLA:
  yarn = Yarn(40.0, 4096, mscale=mscale, mscale_all=mscale)
  return MLA(heads, q_rank, 512, 128, 64, 128, RoPE(1e4, 'interleaved', scaling=yarn))


def _experts(n: int, width: int, shared: int, router: Router) -> Moe:
  return Moe(n, router, Glu(width), shared=Glu(shared * width))


_V2_LITE = TopK(k=6, renormalize=False, balance=0.001, z=0.0)
_V2 = Grouped(
  k=6, score='softmax', renormalize=False, scale=16.0, groups=8, keep=3, group_score='max', rate=None, balance=0.003,
  z=0.0,
)  # fmt: skip
_V3 = Grouped(k=8, scale=2.5, groups=8, keep=4, balance=0.0001, z=0.0)


def _v3(mtp: MTP | None = None) -> Model:
  return deepseek(61, 3, 7168, _latent(128, 1536, 1.0), 18_432, 129_280, _experts(256, 2048, 1, _V3), mtp)


_LITE_SPEC = deepseek(27, 1, 2048, _latent(16, None, 0.707), 10_944, 102_400, _experts(64, 1408, 2, _V2_LITE))
_V2_SPEC = deepseek(60, 1, 5120, _latent(128, 1536, 0.707), 12_288, 102_400, _experts(160, 1536, 2, _V2))

#: V3 is counted with the 58 x 256 biases of its routers; `-mtp` has the module that predicts the token after the next.
MODELS = {
  'deepseek-v2-lite': Entry(_LITE_SPEC, 15_706_484_224, '15.7B', PAPER_2),
  'deepseek-v2': Entry(_V2_SPEC, 235_741_434_880, '236B', PAPER_2),
  'deepseek-v3': Entry(_v3(), 671_026_404_352 + 58 * 256, '671B', PAPER_3),
  'deepseek-v3-mtp': Entry(_v3(SequentialMTP()), 671_026_404_352 + 58 * 256 + 11_610_068_224, '685B', PAPER_3),
}
