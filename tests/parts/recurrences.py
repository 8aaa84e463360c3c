"""Reference recurrences: one token at a time in float64, by their definitions."""

import numpy as np


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def silu(x):
  return x * sigmoid(x)


def softplus(x):
  return np.log1p(np.exp(x))


def project(p, name, x_TD, n_out=1):
  """Return x W + b of a projection of the mixer, with its output axes."""
  kernel = p[name]['kernel']
  return np.tensordot(x_TD, kernel, kernel.ndim - n_out) + p[name].get('bias', 0)


def convolved(p, x_TC):
  """Return the causal convolution of each channel."""
  taps = p['conv']['taps']
  padded = np.concatenate([np.zeros((len(taps) - 1, x_TC.shape[1])), x_TC])
  rows = [np.sum(padded[t : t + len(taps)] * taps, 0) for t in range(len(x_TC))]
  return np.stack(rows) + p['conv'].get('bias', 0)


def normed(x, p, eps):
  return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * p['scale']


def gated_delta(s, p, x_TD):
  """Return the output of `GatedDelta` on one document."""
  N, K, R, H = s.heads, s.key_heads, s.key_dim, s.head_dim
  parts = [project(p, name, x_TD, 2).reshape(len(x_TD), -1) for name in ('q', 'k', 'v')]
  q, k, v = np.split(silu(convolved(p, np.concatenate(parts, 1))), [K * R, 2 * K * R], 1)
  unit = lambda a: a / np.sqrt(np.sum(a * a, -1, keepdims=True) + 1e-6)
  q, k = (np.repeat(unit(a.reshape(-1, K, R)), N // K, 1) for a in (q, k))
  rate = sigmoid(project(p, 'rate', x_TD))
  left = np.exp(-np.exp(p['start']) * softplus(project(p, 'decay', x_TD) + p['shift']))
  S, y = np.zeros((N, R, H)), []
  for q_NR, k_NR, v_NH, b_N, a_N in zip(q, k, v.reshape(-1, N, H), rate, left, strict=True):
    S = a_N[:, None, None] * S
    u = b_N[:, None] * (v_NH - np.einsum('nr,nrh->nh', k_NR, S))
    S = S + k_NR[:, :, None] * u[:, None]
    y.append(np.einsum('nr,nrh->nh', q_NR, S) / np.sqrt(R))
  y = normed(np.stack(y), p['norm'], s.norm.eps) * silu(project(p, 'gate', x_TD, 2))
  return np.tensordot(y, p['o']['kernel'], 2)


def mamba(s, p, x_TD):
  """Return the output of `Mamba` on one document."""
  x = silu(convolved(p, project(p, 'x', x_TD)))
  small = {
    name: normed(project(p, name, x), p[f'{name}_norm'], s.norm.eps) for name in ('rank', 'b', 'c')
  }
  step = softplus(project(p, 'step', small['rank']) + p['shift'])
  S, y = np.zeros((s.width, s.d_state)), []
  for x_F, e_F, b_H, c_H in zip(x, step, small['b'], small['c'], strict=True):
    S = np.exp(-np.exp(p['start']) * e_F[:, None]) * S + (e_F * x_F)[:, None] * b_H
    y.append(S @ c_H + p['skip'] * x_F)
  return project(p, 'o', np.stack(y) * silu(project(p, 'gate', x_TD)))


def mamba2(s, p, x_TD):
  """Return the output of `Mamba2` on one document."""
  N, H, R, K = s.heads, s.head_dim, s.d_state, s.key_heads
  parts = [project(p, name, x_TD, 2).reshape(len(x_TD), -1) for name in ('x', 'b', 'c')]
  x, b, c = np.split(silu(convolved(p, np.concatenate(parts, 1))), [N * H, N * H + K * R], 1)
  x, (b, c) = x.reshape(-1, N, H), (np.repeat(a.reshape(-1, K, R), N // K, 1) for a in (b, c))
  step = np.clip(softplus(project(p, 'step', x_TD) + p['shift']), *s.limits)
  S, y = np.zeros((N, R, H)), []
  for x_NH, b_NR, c_NR, e_N in zip(x, b, c, step, strict=True):
    S = (
      np.exp(-np.exp(p['start']) * e_N)[:, None, None] * S
      + b_NR[:, :, None] * (e_N[:, None] * x_NH)[:, None]
    )
    y.append(np.einsum('nr,nrh->nh', c_NR, S) + p['skip'][:, None] * x_NH)
  y = (np.stack(y) * silu(project(p, 'gate', x_TD, 2))).reshape(len(x_TD), s.norm_groups, -1)
  return np.tensordot(
    normed(y, p['norm'], s.norm.eps).reshape(len(x_TD), N, H), p['o']['kernel'], 2
  )


def rglru(s, p, x_TD):
  """Return the output of `RGLRU` on one document."""
  u = convolved(p, project(p, 'x', x_TD))
  blocks = u.reshape(len(u), s.heads, -1)
  of = lambda name: (
    np.einsum('tnh,nhr->tnr', blocks, p[name]['weight']) + p[name]['bias']
  ).reshape(u.shape)
  a = np.exp(-8 * softplus(p['start']) * sigmoid(of('decay')))
  share = np.sqrt(1 - a * a)
  share[0] = 1
  h, y = np.zeros(s.width), []
  for a_F, u_F in zip(a, share * sigmoid(of('input')) * u, strict=True):
    h = a_F * h + u_F
    y.append(h)
  gate = project(p, 'gate', x_TD)
  gelu = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
  return project(p, 'o', np.stack(y) * gelu)


def gated_conv(s, p, x_TD):
  """Return the output of `GatedConv` on one document."""
  del s
  b, c, x = (project(p, name, x_TD) for name in ('b', 'c', 'x'))
  return project(p, 'o', c * convolved(p, b * x))


def lightning(s, p, x_TD):
  """The definition of `Lightning` on one document, in the first of one layer."""
  N, H = s.heads, s.head_dim
  q, k, v = (silu(project(p, name, x_TD, 2)) for name in ('q', 'k', 'v'))
  left = np.exp(-(1 + 1e-5) * 2.0 ** (-8 * np.arange(1, N + 1) / N))
  S, y = np.zeros((N, H, H)), []
  for q_NH, k_NH, v_NH in zip(q, k, v, strict=True):
    S = left[:, None, None] * S + k_NH[:, :, None] * v_NH[:, None]
    y.append(np.einsum('nr,nrh->nh', q_NH, S))
  y = normed(np.stack(y).reshape(len(x_TD), N * H), p['norm'], s.norm.eps).reshape(len(x_TD), N, H)
  return np.tensordot(y * sigmoid(project(p, 'gate', x_TD, 2)), p['o']['kernel'], 2)
