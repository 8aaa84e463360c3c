"""Convert between tfm checkpoints and Hugging Face folders.

Examples:
  tfm convert --input=all-MiniLM-L6-v2 --output=minilm     # to tfm
  tfm convert --input=runs/1 --output=published            # to Hugging Face
  tfm convert --input=Llama-3.2-1B --adapter=lora --output=merged --to=hf
  tfm convert --input=runs/lora --output=lora --to=peft --base=Llama-3.2-1B

Tokenizer, chat template, settings and model card are copied byte for byte."""

from absl import flags

from tfm.cli import flags as command

FLAGS = command.new()
INPUT = flags.DEFINE_string(
  'input', None, 'a published folder, or the --workdir of a run', required=True, flag_values=FLAGS
)
OUTPUT = flags.DEFINE_string('output', None, 'the new folder', required=True, flag_values=FLAGS)
DTYPE = flags.DEFINE_enum(
  'dtype',
  None,
  ['float32', 'bfloat16', 'float16'],
  'dtype of the parameters; by default unchanged',
  flag_values=FLAGS,
)
TO = flags.DEFINE_enum(
  'to',
  None,
  ['hf', 'tfm', 'peft'],
  'the format; by default the other one',
  flag_values=FLAGS,
)
ARCHITECTURE = flags.DEFINE_string(
  'architecture',
  None,
  '--to=hf: the class, if several fit',
  flag_values=FLAGS,
)
BASE = flags.DEFINE_string(
  'base', None, '--to=peft: the base model of the adapter', flag_values=FLAGS
)
ADAPTER = command.define_adapter(FLAGS)
IGNORED = command.define_ignored(FLAGS)


def main() -> None:
  """Read a model, write it, and print its path."""
  from tfm import hub
  from tfm.core import errors
  from tfm.core.newfolder import check_new
  from tfm.model.count import count_params

  check_new(OUTPUT.value)
  published = hub.is_published(INPUT.value)
  to = TO.value or ('tfm' if published else 'hf')
  if to == 'tfm' and ARCHITECTURE.value:
    raise errors.UserError(
      f'--architecture: {ARCHITECTURE.value} is a class of transformers. Expected --to=hf.'
    )
  base = BASE.value or ''
  if (to == 'peft') != bool(base):
    raise errors.UserError(
      '--base: is the base model of an adapter. Expected both --base and --to=peft.'
    )
  m = hub.load(INPUT.value, dtype=DTYPE.value, ignore=IGNORED.value, adapter=ADAPTER.value)
  size = f'{count_params(m.spec):,} parameters'
  if to == 'tfm':
    hub.save(m.spec, m.params, OUTPUT.value, tokenizer=m.tokenizer, files=m.files)
    print(f'{OUTPUT.value}: a tfm checkpoint, {size}. tfm.load({OUTPUT.value!r}) reads it.')
    return
  if to == 'peft':
    name = hub.export_peft(
      m.spec, m.params, OUTPUT.value, base=base, architecture=ARCHITECTURE.value
    )
    print(
      f'{OUTPUT.value}: the LoRA of a {name}. peft.PeftModel.from_pretrained(base, '
      f'{OUTPUT.value!r}) reads it.'
    )
    return
  name = m.export_hf(OUTPUT.value, architecture=ARCHITECTURE.value)
  print(
    f'{OUTPUT.value}: a {name}, {size}. transformers.{name}.from_pretrained({OUTPUT.value!r}) '
    f'reads it.'
  )
