"""Export a model as compiled programs that run with jax alone, without tfm.

Examples:
  tfm export --checkpoint=runs/1 --output=exported
  tfm export --checkpoint=Llama-3.2-1B --output=exported --platforms=cpu,tpu \\
    --dtype=bfloat16 --slots=4096

The folder holds forward.jax, prefill.jax and step.jax (jax.export), the weights
as params.safetensors, and programs.json with the shapes of all arguments."""

from absl import flags

from tfm.cli import flags as command

FLAGS = command.new()
CHECKPOINT = command.define_checkpoint(FLAGS)
OUTPUT = flags.DEFINE_string('output', None, 'the new folder', required=True, flag_values=FLAGS)
PLATFORMS = flags.DEFINE_list(
  'platforms', ['cpu', 'cuda', 'tpu'], 'the platforms: cpu, cuda, rocm, tpu', flag_values=FLAGS
)
SLOTS = flags.DEFINE_integer(
  'slots',
  None,
  'most tokens of a sequence. Defaults to the positions of the model, at most 2048',
  lower_bound=1,
  flag_values=FLAGS,
)
DTYPE = flags.DEFINE_enum(
  'dtype',
  None,
  ['float32', 'bfloat16', 'float16'],
  'dtype of computation. Defaults to that of the parameters',
  flag_values=FLAGS,
)
WEIGHTS = flags.DEFINE_enum(
  'weights',
  'beside',
  ['beside', 'inside'],
  'weights as a file, or inside the programs',
  flag_values=FLAGS,
)
ADAPTER = command.define_adapter(FLAGS)
IGNORED = command.define_ignored(FLAGS)


def main() -> None:
  """Write the programs, and print their shapes."""
  from tfm import hub
  from tfm.core.newfolder import check_new
  from tfm.hub.programs import export_programs

  check_new(OUTPUT.value)
  model = hub.load(CHECKPOINT.value, ignore=IGNORED.value, adapter=ADAPTER.value)
  about = export_programs(
    model,
    OUTPUT.value,
    platforms=PLATFORMS.value,
    slots=SLOTS.value,
    inside=WEIGHTS.value == 'inside',
    dtype=DTYPE.value,
  )
  print(f'{OUTPUT.value}: {", ".join(about["programs"])} for {", ".join(about["platforms"])}')
  for name, signature in about['programs'].items():
    given = signature['arguments'][0]
    listed = ', '.join(f'{key} {given[key]}' for key in sorted(given)[:4])
    more = ', ...' if len(given) > 4 else ''
    print(f'  {name}: {listed}{more}')
  for note in about['notes']:
    print(f'  {note}')
