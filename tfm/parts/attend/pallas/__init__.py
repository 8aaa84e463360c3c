"""An attention kernel for TPUs that runs any mask and any bias inside the kernel, tile by tile.

This page explains how the folder works. `Pallas` in `flash.py` is the part that users choose with
`attend=pallas`.

# The problem

Flash attention (arXiv:2205.14135, arXiv:2307.08691) never writes the scores [B, N, T, S] to memory.
It computes one tile of them at a time, `queries` x `keys`, and keeps a running maximum and sum per
query. The usual kernels know a few masks by name. Here a mask, a bias or a relative position is an
ordinary JAX function of two `TokenInfo`s, written with no kernel in mind, and the kernel must run
it on a tile. Three obstacles:

1. A Pallas kernel cannot close over arrays, and a bias usually does (a learned table).
2. The functions work on [B, T] and [B, S] and give [B, N, T, S]. A TPU's vector unit works on two
   dimensions.
3. Mosaic, the TPU compiler, gathers only within 128 lanes, and has no gradient of that.

# The interpreter: `tiled.py`

`tiled(fn, q, k, heads, out)` traces `fn` to a jaxpr, inlines its calls (`core/closures.py`) and
sorts the equations:

- An equation that reads only known arrays (constants, learned tables) runs once, outside the
  kernel.
- An equation that depends on the infos becomes a step, which the kernel runs on each tile.

The result is a `Tiled`: the steps, and the arrays that the steps need from outside. Calling it runs
the steps one by one. Each value is a `Tile`: a two-dimensional array (a scalar, a row, a column or
the whole tile) with the letters of the axes that the original value had. Queries lie along one
dimension of the tile and keys along the other, so a [B, T, 1] value is a column and a [B, 1, S]
value a row. An axis B or N has one element inside the kernel, since one program of the grid handles
one batch entry and one head. Broadcasts and transposes therefore only rename letters, and no data
moves.

Supported, and everything else raises `Unfit` with the reason:

- elementwise primitives that Mosaic has (`_ELEMENTWISE`), computed in float32 and int32;
- `broadcast_in_dim`, `reshape` that adds or drops axes of size 1, `squeeze`, `transpose`,
  `convert_element_type`, `copy`;
- outside numbers with at most one value per head, read from scalar memory;
- lookups (`gather`) in a table of up to 4,096 entries per head along one axis, by an index that
  depends on the infos.

Not supported: reductions, matrix products, sorting, loops, tables that depend on the tokens.
`Pallas.refuses` finds this out before anything is compiled, so `auto` can choose another kernel.

# The data flow

    flash.py    Pallas.__call__: split the mask into views (attend/views.py), one kernel call per view
      tiled.py    mask, biases, term functions -> Tiled
      _numbers    their arrays -> floats, ints and lookup tables per head; _laid: terms -> arrays per token
      rules.py    Rules: everything that is the same on each tile; Where: one tile's inputs
      schedule.py     Operands (all arrays of a kernel), Schedule (rules, tile sizes, dtypes)
      visits.py   kinds: evaluate the mask on all tiles -> 0 masked out, 1 mixed, 2 all allowed
                  listed: the tiles to visit, packed into one int32 each, in scalar memory
      kernels.py  forward, backward_queries, backward_keys: the three pallas_calls
        lookup.py   lookups 128 entries at a time, and the sums that are their gradients

The grid is (batch entry, head, visit); `backward_keys` adds the query heads of a key/value head. A
visit is a tile of scores. Tiles that are masked out are not on the list, so they are neither
fetched nor computed; only a row of tiles without any other gets one visit, to write its zeros. On
tiles of kind 2 the mask is not evaluated. A row of tiles starts its sums at its first visit and
writes its result at its last.

`forward` returns the output and the log-sum-exp of each query. The backward kernels compute the
scores of each tile again from these. `backward_queries` goes along rows of tiles and sums the
gradients of queries, of bias numbers and of tables. `backward_keys` goes along columns and sums the
gradients of keys and values; all its tiles are transposed, keys by queries.

The gradient of a bias comes from `jax.vjp` of its steps inside the kernel (`Rules.numbers_of`): the
interpreter produces ordinary JAX operations, so autodiff applies. The gradients of lookups
(`lookup.count`) and of terms (`Rules.shares`) are written by hand.

Terms (`parts/term.py`) are the other way to add to scores: a product of two vectors, one per query
and one per key, or a lookup in a query's or a key's own vector at an index that a `Tiled` computes.
The kernel fetches these vectors together with the queries and keys.

# Where to start

Read `flash.py` top down, then `tiled.py`, then `kernels.forward`. To support one more primitive,
add it to `_ELEMENTWISE` or `_stepped` in `tiled.py`, a case in `tests/parts/test_pallas.py`, and
one in `tests/tpu/test_pallas.py`, which compiles for a TPU ahead of time.
"""
