"""SmolLM and SmolLM 2 (Hugging Face, 2024): Llama's block at small sizes."""

from tfm.parts.relative.rope import RoPE
from tfm.zoo.entry import Entry
from tfm.zoo.llama import llama

POST = 'SmolLM - blazingly fast and remarkably powerful, Hugging Face 2024'
PAPER_2 = 'SmolLM2: When Smol Goes Big, arXiv:2502.02737'

_V1, _V2, _LARGE_V2 = RoPE(1e4), RoPE(1e5), RoPE(1.3e5)

MODELS = {
  'smollm-135m': Entry(llama(30, 576, 9, 3, 1536, 49_152, _V1, True), 134_515_008, '135M', POST),
  'smollm-360m': Entry(llama(32, 960, 15, 5, 2560, 49_152, _V1, True), 361_821_120, '360M', POST),
  'smollm-1.7b': Entry(
    llama(24, 2048, 32, 32, 8192, 49_152, _V1, True), 1_711_376_384, '1.7B', POST
  ),
  'smollm2-135m': Entry(
    llama(30, 576, 9, 3, 1536, 49_152, _V2, True), 134_515_008, '135M', PAPER_2
  ),
  'smollm2-360m': Entry(
    llama(32, 960, 15, 5, 2560, 49_152, _V2, True), 361_821_120, '360M', PAPER_2
  ),
  'smollm2-1.7b': Entry(
    llama(24, 2048, 32, 32, 8192, 49_152, _LARGE_V2, True), 1_711_376_384, '1.7B', PAPER_2
  ),
}
