"""Minimal GPT-2 and Llama in PyTorch: fused attention, autocast to bfloat16, `torch.compile`."""

from collections.abc import Callable
import dataclasses
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The sizes of a decoder.

  Attributes:
    llama: RMSNorm, RoPE and SwiGLU without biases; else GPT-2's LayerNorm, positions and GELU.
    vocab: The number of tokens.
    D: The width.
    layers: The number of layers.
    N: The number of query heads.
    K: The number of key/value heads.
    F: The width of the feed-forward layer.
    length: The number of positions.
  """

  llama: bool
  vocab: int
  D: int
  layers: int
  N: int
  K: int
  F: int
  length: int


class Layer(nn.Module):
  """A pre-norm decoder layer."""

  def __init__(self, s: Sizes):
    super().__init__()
    self.s, H, bias = s, s.D // s.N, not s.llama
    norm = (lambda: nn.RMSNorm(s.D, eps=1e-5)) if s.llama else (lambda: nn.LayerNorm(s.D))
    self.norm1, self.norm2 = norm(), norm()
    self.qkv = nn.Linear(s.D, (s.N + 2 * s.K) * H, bias=bias)
    self.o = nn.Linear(s.N * H, s.D, bias=bias)
    self.up = nn.Linear(s.D, s.F * (2 if s.llama else 1), bias=bias)
    self.down = nn.Linear(s.F, s.D, bias=bias)

  def forward(self, x: torch.Tensor, rope: Any) -> torch.Tensor:
    """Return the residual stream after the layer."""
    s, (B, T, _), H = self.s, x.shape, self.s.D // self.s.N
    q, k, v = self.qkv(self.norm1(x)).split([s.N * H, s.K * H, s.K * H], -1)
    q, k, v = (a.view(B, T, -1, H).transpose(1, 2) for a in (q, k, v))
    if rope is not None:
      q, k = rotated(q, *rope), rotated(k, *rope)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=s.K != s.N)
    x = x + self.o(y.transpose(1, 2).reshape(B, T, -1))
    h = self.up(self.norm2(x))
    if s.llama:
      gate, h = h.chunk(2, -1)
      return x + self.down(F.silu(gate) * h)
    return x + self.down(F.gelu(h, approximate='tanh'))


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
  """Return queries or keys with rotary positions."""
  a, b = x.chunk(2, -1)
  return (x * cos + torch.cat([-b, a], -1) * sin).to(x.dtype)


class Decoder(nn.Module):
  """A language model with tied embeddings."""

  def __init__(self, s: Sizes):
    super().__init__()
    self.s = s
    self.table = nn.Embedding(s.vocab, s.D)
    self.positions = None if s.llama else nn.Embedding(s.length, s.D)
    self.layers = nn.ModuleList(Layer(s) for _ in range(s.layers))
    self.norm = nn.RMSNorm(s.D, eps=1e-5) if s.llama else nn.LayerNorm(s.D)
    H = s.D // s.N
    angle = torch.arange(s.length)[:, None] / 5e5 ** (torch.arange(0, H, 2) / H)
    self.register_buffer('cos', torch.cat([angle.cos()] * 2, -1), persistent=False)
    self.register_buffer('sin', torch.cat([angle.sin()] * 2, -1), persistent=False)

  def forward(self, ids: torch.Tensor) -> torch.Tensor:
    """Return the logits of each next token."""
    T = ids.shape[1]
    x, rope = self.table(ids), (self.cos[:T], self.sin[:T])
    if self.positions is not None:
      x, rope = x + self.positions.weight[:T], None
    for layer in self.layers:
      x = layer(x, rope)
    return F.linear(self.norm(x), self.table.weight)


def train_call(
  sizes: Sizes, params: int, batch: int, length: int, steps: int, compiled: bool
) -> Callable[[], float]:
  """Return a call that trains for some steps of AdamW.

  Args:
    sizes: The sizes of the model.
    params: The number of parameters that it must have.
    batch: The number of sequences.
    length: Their length.
    steps: The number of steps in a call.
    compiled: Whether to use `torch.compile`.

  Returns:
    A function that returns the last loss.
  """
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  torch.set_float32_matmul_precision('high')
  torch.manual_seed(0)
  with torch.device(device):
    model = Decoder(sizes)
  for weight in model.parameters():
    if weight.ndim > 1:
      nn.init.normal_(weight, std=0.02)
  found = sum(p.numel() for p in model.parameters())
  assert found == params, f'{found} parameters, and tfm has {params}'
  forward: Any = torch.compile(model) if compiled else model
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device == 'cuda')
  ids = np.random.default_rng(0).integers(0, sizes.vocab, (batch, length + 1))
  tokens = torch.tensor(ids, device=device)

  def call() -> float:
    for _ in range(steps):
      optimizer.zero_grad()
      with torch.autocast(device, torch.bfloat16):
        logits = forward(tokens[:, :-1])
      loss = F.cross_entropy(logits.view(-1, sizes.vocab).float(), tokens[:, 1:].reshape(-1))
      loss.backward()
      optimizer.step()
    return float(loss.item())

  return call


def decode_call(
  fields: dict[str, Any], batch: int, context: int, new: int, compiled: bool
) -> Callable[[], None]:
  """Return a call that decodes greedily with the static cache of `transformers`.

  Args:
    fields: The fields of `config.json`.
    batch: The number of sequences.
    context: The length of the prompts.
    new: The number of new tokens.
    compiled: Whether to compile the step, which `transformers` does on a GPU only.

  Returns:
    A function that generates.
  """
  import transformers

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  known = {n: v for n, v in fields.items() if n not in ('architectures', 'model_type')}
  made = transformers.AutoConfig.for_model(fields['model_type'], **known)
  with torch.device(device):
    model: Any = transformers.AutoModelForCausalLM.from_config(made).to(torch.bfloat16).eval()
  model.generation_config.eos_token_id = None
  ids = np.random.default_rng(0).integers(1, made.vocab_size, (batch, context))
  prompts = torch.tensor(ids, device=device)

  def call() -> None:
    with torch.inference_mode():
      out = model.generate(
        prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=new, do_sample=False,
        pad_token_id=0, cache_implementation='static', disable_compile=not compiled,
      )  # fmt: skip
    assert out.shape[1] == context + new

  return call
