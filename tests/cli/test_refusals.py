"""Refusals are found by asking, and said once for rows that are refused alike."""

from tfm.cli import refusals
from tfm.core import config


def test_what_is_refused_is_refused_and_what_is_not_is_not():
  lines = list(refusals._training())
  post = [
    why
    for rows, _, why in lines
    if rows == (('residual_layout', 'post'), ('residual', 'reversible'))
  ]
  assert post[0].startswith(
    'residual_layout=post normalises the residual stream, which residual=reversible cannot invert.'
  )
  assert not any(('relative', 'rope') in rows for rows, _, _ in lines)
  config.validate(refusals._with(refusals._decoder(), ('relative', 'shaw'), ('mask', 'window')))


def test_rows_refused_alike_are_said_together_and_others_apart():
  one, two = (('mask', 'full'), ('mtp', 'parallel')), (('mask', 'both'), ('mtp', 'parallel'))
  assert refusals._said([one, two]) == 'mask=full, both with mtp=parallel'
  odd = (('mask', 'both'), ('mtp', 'sequential'))
  assert refusals._said([one, odd]) == 'mask=full with mtp=parallel; mask=both with mtp=sequential'
  assert refusals._said([(('mask', 'full'),)]) == 'mask=full'


def test_a_place_that_a_model_has_not_is_no_refusal():
  assert refusals._with(refusals._decoder(), ('mixer', 'nothing')) is None
