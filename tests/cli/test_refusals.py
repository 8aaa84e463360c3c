"""Refused combinations are found by validation, and grouped by their reason."""

from tfm.cli import refusals
from tfm.core import config


def test_listed_refusals_match_validation():
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


def test_refusals_with_one_reason_are_grouped():
  one, two = (('mask', 'full'), ('mtp', 'parallel')), (('mask', 'both'), ('mtp', 'parallel'))
  assert refusals._described([one, two]) == 'mask=full, both with mtp=parallel'
  odd = (('mask', 'both'), ('mtp', 'sequential'))
  expected = 'mask=full with mtp=parallel; mask=both with mtp=sequential'
  assert refusals._described([one, odd]) == expected
  assert refusals._described([(('mask', 'full'),)]) == 'mask=full'


def test_missing_field_is_not_a_refusal():
  assert refusals._with(refusals._decoder(), ('mixer', 'nothing')) is None
