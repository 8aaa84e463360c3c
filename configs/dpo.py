r"""Train a published decoder on preferences, with its tokenizer.

  tfm train --config=dpo:FOLDER --config.data.files=pairs.jsonl --workdir=runs/dpo
  tfm train --config=dpo:FOLDER --config.data.files=pairs.jsonl --workdir=runs/qlora \
    --config.model.adapter=lora --config.optim.only='*/lora/*' \
    --config.frozen='int4(weights=nf4, tile=64)'

Each line of pairs.jsonl is {"prompt": "...", "chosen": "...", "rejected": "..."}. FOLDER holds a
decoder with its tokenizer, such as SmolLM2-135M-Instruct. It is also the reference. Training takes
500 steps of 16 pairs of up to 512 tokens. Time and scores were not measured for a published model.
"""

from tfm import hub
from tfm.data import Preferences
from tfm.data.tokenizer import File
from tfm.optim import AdamW
from tfm.optim.schedule import Cosine
from tfm.tasks import Dpo
from tfm.train import Experiment, Record


def get_config(folder: str) -> Experiment:
  """Return the experiment of a folder, which is the start and the reference."""
  return Experiment(
    model=hub.read_config(folder).spec,
    data=Preferences(tokenizer=File(folder), length=512, batch=16),
    task=Dpo(beta=0.1),
    optim=AdamW(lr=1e-6, schedule=Cosine(warmup=50), decay=0.0), steps=500, save_every=100,
    eval_every=100,
    record=Record(sample=None), init_from=folder,
  )  # fmt: skip
