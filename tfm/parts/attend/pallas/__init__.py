"""A TPU attention kernel that evaluates any mask and any bias inside the kernel, per tile.

This page explains the design of the folder. Users choose the part `Pallas` in `flash.py` with
`attend=pallas`.

# Problem

Flash attention (arXiv:2205.14135, arXiv:2307.08691) computes scores one tile of `queries` x `keys`
at a time, and keeps a running maximum and sum per query. The scores `[B, N, T, S]` are never in
HBM. Most kernels support a fixed set of masks. Here masks, biases and relative positions are
ordinary JAX functions of two `TokenInfo`s, `[B, T]` and `[B, S]`, and return `[B, N, T, S]`. They
know nothing of kernels. Three obstacles:

1. A Pallas kernel cannot close over arrays, but a bias usually does (a learned table).
2. The functions use up to four axes; the vector unit of a TPU has two.
3. Mosaic, the TPU compiler, can gather only within 128 lanes, and such a gather has no gradient.

# Interpreter: `tiled.py`

`tiled(fn, q, k, heads, out)` traces `fn` to a jaxpr, inlines its calls (`core/closures.py`) and
splits the equations:

- An equation of known arrays only (constants, learned tables) runs once, outside the kernel.
- An equation that depends on the token infos becomes a step that the kernel runs on every tile.

The result is a `Tiled`: the steps and the outside arrays that they read. Calling it runs the steps
on `Tile` values. A `Tile` is a two-dimensional array (a scalar, row, column or whole tile) and the
axis letters of the original value. Queries lie along one dimension and keys along the other. An
array `[B, T, 1]` becomes a column, and `[B, 1, S]` a row. One program handles one sequence and one
head, so the axes B and N have size 1. Broadcasts and transposes therefore only relabel axes; no
data moves.

Supported:

- elementwise primitives that Mosaic has (`_ELEMENTWISE`), in float32 and int32;
- `broadcast_in_dim`, `reshape` that adds or drops axes of size 1, `squeeze`, `transpose`,
  `convert_element_type`, `copy`;
- outside scalars per head, read from scalar memory;
- `gather` along one axis of an outside table with up to 4,096 entries per head.

Anything else, such as reductions, matrix products, sorting, loops and tables that depend on tokens,
raises `Unsupported` with the reason. `Pallas.refuses` detects this before compilation, so that
`attend=auto` can choose another kernel.

Modules, in call order::

    flash.py             Pallas: one kernel call per view of the mask (attend/views.py)
      tiled.py           mask, biases and term functions become Tiled
      arrays.py          arrays of functions: floats, ints and tables; term vectors per token
      tile_scores.py     TileScores: computes the scores of a tile from TileInputs
      schedule.py        Operands (all arrays) and Schedule (static options)
      visits.py          tile_kinds: 0 masked out, 1 mixed, 2 all pairs allowed
                         list_visits: the tiles to visit, one int32 each, in scalar memory
      differentiable.py  the custom gradient, and sharding over a mesh
        kernels.py       forward, backward_queries, backward_keys
          launch.py      blocks, scalar memory and the pallas_call
          lookup.py      lookups of 128 entries at a time, and their gradients

# Grid

The grid is (sequence, head, visit); `backward_keys` adds an axis for the query heads of a key/value
head. A visit is one tile of scores. Masked-out tiles are not in the list, so they are neither
fetched nor computed. The exception is a row of tiles that is masked out completely: it has one
visit, which writes zeros. On tiles of kind 2 the mask is not evaluated. A row of tiles initialises
its sums at its first visit and writes its result at its last.

# Gradients

`forward` returns the output and the log-sum-exp of each query. The backward kernels recompute the
scores of each tile from them.

- `backward_queries` walks along rows of tiles. It sums the gradients of queries, of the floats of
  the bias, and of tables.
- `backward_keys` walks along columns, on transposed tiles (keys by queries). It sums the gradients
  of keys and values.

The gradient of a bias is `jax.vjp` of its steps, inside the kernel (`TileScores.bias_gradient`):
the steps are ordinary JAX operations. The gradients of lookups (`lookup.add_table_gradient`) and of
terms (`TileScores.add_term_gradients`) are written by hand.

# Terms

A term (`parts/term.py`) also adds to scores. It is the product of a query vector and a key vector,
or a lookup in either at an index that a `Tiled` computes. The kernel fetches these vectors together
with queries and keys.

# Where to start

Read `flash.py`, then `tiled.py`, then `kernels.forward`. To support a primitive, add it to
`_ELEMENTWISE` or `_run_step` in `tiled.py`. Add a case to `tests/parts/test_pallas.py`, and one to
`tests/tpu/test_pallas.py`, which compiles for a TPU ahead of time.
"""
