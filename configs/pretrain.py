r"""Train any language model of the zoo from scratch.

  tfm train --config=pretrain:gpt2 --config.data='text(files=corpus/*.txt)' \
    --config.data.tokenizer=bpe --workdir=runs/gpt2

Without data the text is the source of the Python standard library, which is too little for these
models. The model determines the task: causal language modelling for decoders, masked for encoders,
permutation for XLNet, span corruption for encoder-decoders. Weights are sharded over all devices
(fsdp), and matrix products are bfloat16. With AdamW, 124M parameters take about 2 GB, 8B about
130 GB.
"""

from tfm import zoo
from tfm.core.errors import ConfigError
from tfm.core.precision import Precision
from tfm.data.stdlib import Stdlib
from tfm.data.tokenizer import Bpe
from tfm.model.spec import Model
from tfm.optim import AdamW
from tfm.optim.schedule import Cosine
from tfm.tasks import CausalLM, MaskedLM, PermutationLM, SpanCorruption, Task
from tfm.train import Experiment, Record, Sample
from tfm.train.mesh import Mesh


def get_config(model: str) -> Experiment:
  """One pass of AdamW over 100,000 batches of 256 rows, cosine to a tenth after 2000 steps of
  warm-up.
  """
  spec = zoo.get(model)
  if not _reads_text(spec):
    raise ConfigError('the model reads more than text. Expected a language model.')
  return Experiment(
    model=spec,
    data=Stdlib(tokenizer=Bpe(16_384), length=_length(spec), batch=256),
    task=_task(spec),
    optim=AdamW(lr=3e-4, schedule=Cosine(warmup=2000, floor=0.1), b1=0.9, b2=0.95, decay=0.1),
    steps=100_000,
    save_every=1000,
    eval_every=1000,
    mesh=Mesh(data=1, fsdp=-1),
    precision=Precision(compute='bfloat16'),
    remat='full',
    record=Record(
      eval_batches=16, sample=Sample() if spec.causal and spec.encoder is None else None
    ),
  )


def _reads_text(model: Model) -> bool:
  return all(model.tower(tower).vocab for tower in ('', *model.towers))


def _task(model: Model) -> Task:
  if model.encoder is not None:
    return SpanCorruption()
  if model.embed.query:
    return PermutationLM()
  return CausalLM() if model.causal else MaskedLM()


def _length(model: Model) -> int:
  if model.encoder is not None:
    return min(512, model.max_positions or 512, model.encoder.max_positions or 512)
  return min(model.max_positions or 2048, 2048)
