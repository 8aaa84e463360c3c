"""Writes a published checkpoint as one of ours, or one of ours as `transformers` opens it.

tfm convert --input=all-MiniLM-L6-v2 --output=minilm
tfm convert --input=runs/1 --output=published/1
tfm convert --input=runs/1 --output=published/1 --architecture=MistralForCausalLM --dtype=bfloat16
"""

from typing import Any

from absl import flags

from tfm.cli import flags as command

FLAGS = command.new()
INPUT = flags.DEFINE_string('input', None, 'a published folder, or a --workdir.', required=True, flag_values=FLAGS)
OUTPUT = flags.DEFINE_string('output', None, 'the folder to write, a new one.', required=True, flag_values=FLAGS)
DTYPE = flags.DEFINE_enum(
  'dtype', None, ['float32', 'bfloat16', 'float16'], 'of the parameters; by default as they are.', flag_values=FLAGS
)
TO = flags.DEFINE_enum('to', None, ['hf', 'tfm'], 'what to write; by default what the input is not.', flag_values=FLAGS)
ARCHITECTURE = flags.DEFINE_string(
  'architecture', None, 'the class of transformers to write for, where several fit.', flag_values=FLAGS
)
IGNORED = command.define_ignored(FLAGS)


def main() -> None:
  """Reads, writes, and says what there is now."""
  from tfm import hub
  from tfm.core import errors
  from tfm.model.count import count_params

  hub.check_new(OUTPUT.value)
  published = hub.is_published(INPUT.value)
  to = TO.value or ('tfm' if published else 'hf')
  if to == 'tfm' and ARCHITECTURE.value:
    raise errors.UserError('--architecture: is a class of transformers, and a checkpoint of ours is to be written.')
  m = hub.load(INPUT.value, dtype=DTYPE.value, ignore=IGNORED.value)
  size = f'{count_params(m.spec):,} parameters'
  kept: dict[str, Any] = {'tokenizer': m.tokenizer, 'tokens': m.tokens, 'processor_files': m.processor_files}
  if to == 'tfm':
    hub.save(m.spec, m.params, OUTPUT.value, **kept)
    print(f'{OUTPUT.value}: a checkpoint of ours, {size}. tfm.load({OUTPUT.value!r}) reads it.')
    return
  name = hub.export_hf(m.spec, m.params, OUTPUT.value, architecture=ARCHITECTURE.value, **kept)
  print(f'{OUTPUT.value}: a {name}, {size}. transformers.{name}.from_pretrained({OUTPUT.value!r}) reads it.')
