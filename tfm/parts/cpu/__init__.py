"""Code that runs only on CPUs, where XLA compiles the plain form badly.

- `argmax`: the most probable token, for decoding. The plain form is `jnp.argmax`.
- `dense`: products of few rows with float weights, for decoding. The plain form is in
  `tfm.parts.stored`.
- `grouped`: the product of a mixture of experts. The plain form is in `tfm.parts.grouped`.
- `int8`: products with int8 weights, for decoding. The plain form is in `tfm.parts.int8`.

The plain form chooses with `jax.lax.platform_dependent`, so a program compiled for another platform
contains none of this. Skip the folder if you use a GPU or a TPU. Measurements are in
`scripts/bench/NOTES.md`.

Code that runs on every platform stays with its part, even if the CPU compiler is the reason for its
form. Examples are the custom gradients of `tfm.parts.contract` and the layout of
`tfm.parts.stored.Rows`.
"""
