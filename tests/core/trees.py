"""Random configs."""

from hypothesis import strategies as st

from .kinds import RMS, Alibi, Block, Limits, Mixer, Model, Norm, Relative, Rope, Run

FLOATS = st.floats(allow_nan=False)
RELATIVES = (
  st.builds(Relative)
  | st.builds(Alibi)
  | st.builds(Rope, FLOATS, st.sampled_from(['halves', 'pairs']))
)
NORMS = st.builds(Norm, FLOATS) | st.builds(RMS, FLOATS)
MIXERS = st.builds(Mixer, st.integers(), st.none() | st.integers(), RELATIVES, st.none() | NORMS)
MODELS = st.builds(
  Model, st.integers(), st.lists(st.builds(Block, MIXERS, NORMS), max_size=2).map(tuple), NORMS
)
RUNS = st.builds(
  Run,
  model=MODELS,
  files=st.lists(st.text(), max_size=2).map(tuple),
  betas=st.tuples(FLOATS, FLOATS),
  lr=FLOATS,
  resume=st.booleans(),
  rules=st.dictionaries(st.text(), st.none() | st.text(), max_size=2),
  schedule=FLOATS | RELATIVES,
  limits=st.none() | st.builds(Limits, FLOATS, FLOATS),
  mixed=st.none() | st.integers() | st.text(),
)
