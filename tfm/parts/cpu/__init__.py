"""Code that only runs on CPUs, because XLA's CPU compiler handles the plain form badly.

- `grouped`: the product of a mixture of experts. The plain form is in `tfm.parts.grouped`.
- `int8`: products with int8 weights, for decoding. The plain form is in `tfm.parts.int8`.

The plain form chooses with `jax.lax.platform_dependent`, so a program that is compiled for another
platform contains none of this. A reader who has a GPU or a TPU can skip the folder. Measurements
are in `scripts/bench/NOTES.md`.

Code that runs on every platform stays with its part, even if the CPU compiler is the reason for its
form: the custom gradients of `tfm.parts.contract` and the weight layout of `tfm.parts.stored.Rows`.
"""
