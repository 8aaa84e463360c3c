r"""Fine-tune a published decoder on conversations, with a loss on the answers only.

  tfm train --config=chat:FOLDER --config.data.files=chat.jsonl --workdir=runs/chat
  tfm train --config=chat:FOLDER --config.data.files=chat.jsonl --workdir=runs/lora \
    --config.model.adapter=lora --config.optim.only='*/lora/*' --config.optim.lr=2e-4
  tfm generate --checkpoint=runs/chat --chat --prompt='Hello'

A line of chat.jsonl is {"messages": [{"role": "user", "content": "..."}, ...]}. FOLDER holds a
decoder with its tokenizer and chat template, such as SmolLM2-135M-Instruct. For a folder without a
template add --config.data.template=chatml, and --config.data.new_tokens=add if its tokenizer lacks
the special tokens of ChatML. Training takes 1000 steps of 8 sequences of 1024 tokens, which hold
whole conversations. Time and loss were not measured for a published model.
"""

from tfm import hub
from tfm.data import Conversations
from tfm.data.tokenizer import File
from tfm.optim import AdamW
from tfm.optim.schedule import Cosine
from tfm.tasks import CausalLM
from tfm.train import Experiment, Record


def get_config(folder: str) -> Experiment:
  """Return the experiment of a folder, with its spec, tokenizer, template and parameters."""
  data = Conversations(tokenizer=File(folder), template=folder, length=1024, batch=8)
  return Experiment(
    model=hub.read_config(folder).spec, data=data, task=CausalLM(),
    optim=AdamW(lr=2e-5, schedule=Cosine(warmup=50), decay=0.0), steps=1000, save_every=250,
    eval_every=250,
    record=Record(sample=None), init_from=folder,
  )  # fmt: skip
