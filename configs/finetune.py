r"""Continue training a published decoder on your text, with its tokenizer.

  tfm train --config=finetune:FOLDER --config.data.files=text.txt --workdir=runs/finetune
  tfm train --config=finetune:FOLDER --config.data.files=text.txt --workdir=runs/lora \
    --config.model.adapter=lora --config.optim.only='*/lora/*'

FOLDER holds a decoder with its tokenizer, such as SmolLM2-135M. Training takes 1000 steps of 8
sequences of 512 tokens. Checkpoints keep the files of FOLDER, so `tfm generate --chat` works with
the workdir. Time and loss were not measured for a published model.
"""

from tfm import hub
from tfm.data import Text
from tfm.data.tokenizer import File
from tfm.optim import AdamW
from tfm.optim.schedule import Cosine
from tfm.tasks import CausalLM
from tfm.train import Experiment, Record


def get_config(folder: str) -> Experiment:
  """Return the experiment of a folder, with its spec, tokenizer and parameters."""
  return Experiment(
    model=hub.read_config(folder).spec, data=Text(tokenizer=File(folder), length=512, batch=8),
    task=CausalLM(),
    optim=AdamW(lr=2e-5, schedule=Cosine(warmup=50), decay=0.0), steps=1000, save_every=250,
    eval_every=250,
    record=Record(sample=None), init_from=folder,
  )  # fmt: skip
