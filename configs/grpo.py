r"""Train a published decoder on problems with verifiable answers, with its tokenizer.

  tfm train --config=grpo:FOLDER --config.data.files=problems.jsonl --workdir=runs/grpo
  tfm train --config=grpo:FOLDER --config.data.files=problems.jsonl --workdir=runs/mine \
    --config.task.rewards='(my_rewards.py:score,)'

Each line of problems.jsonl is {"prompt": "...", "answer": "..."}. The reward is 1 if the last
number of a response equals the last number of the answer, as in GSM8K. FOLDER holds a decoder with
its tokenizer, such as Qwen2.5-0.5B-Instruct. Training takes 500 steps of 8 problems with 8
responses of up to 256 tokens. Time and rewards were not measured for a published model.
"""

from tfm import hub
from tfm.data import Problems
from tfm.data.tokenizer import File
from tfm.optim import AdamW
from tfm.optim.schedule import Cosine
from tfm.tasks import Grpo
from tfm.tasks.rewards import TABLE as REWARDS
from tfm.train import Experiment, Record


def get_config(folder: str) -> Experiment:
  """Return the experiment of a folder, which is the start and the reference."""
  return Experiment(
    model=hub.read_config(folder).spec,
    data=Problems(tokenizer=File(folder), length=512, batch=8),
    task=Grpo(rewards=(REWARDS['last_number'](),), group=8, tokens=256, beta=0.01),
    optim=AdamW(lr=1e-6, schedule=Cosine(warmup=20), decay=0.0), steps=500, save_every=100,
    eval_every=100,
    record=Record(sample=None), init_from=folder,
  )  # fmt: skip
