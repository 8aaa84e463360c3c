"""Any language model of the zoo from scratch, by its name.

tfm train --config=pretrain:gpt2 --workdir=runs/gpt2

The text is the standard library's own source, which every machine has and which is far too little
for these models; give your own: --config.data=text --config.data.files='corpus/*.txt'
--config.data.tokenizer=bpe. The task follows from the model: causal LM for a decoder, masked LM for
an encoder, permutation LM for one that can be asked (XLNet), span corruption for an
encoder-decoder. Weights are spread over all devices (fsdp), matmuls are bfloat16. 124M parameters
take about 2 GB with AdamW, 8B about 130 GB."""

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


def get_config(name: str) -> Experiment:
  """One pass of AdamW over 100,000 batches of 256 rows, cosine to a tenth after 2000 steps of
  warm-up.
  """
  model = zoo.get(name)
  if not _reads_text(model):
    raise ConfigError(
      f'pretrain:{name}: the model reads more than text. Expected a language model.'
    )
  return Experiment(
    model=model,
    data=Stdlib(tokenizer=Bpe(16_384), length=_length(model), batch=256),
    task=_task(model),
    optim=AdamW(lr=3e-4, schedule=Cosine(warmup=2000, floor=0.1), b1=0.9, b2=0.95, decay=0.1),
    steps=100_000,
    save_every=1000,
    eval_every=1000,
    mesh=Mesh(data=1, fsdp=-1),
    precision=Precision(compute='bfloat16'),
    remat='full',
    record=Record(
      eval_batches=16, sample=Sample() if model.causal and model.encoder is None else None
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
