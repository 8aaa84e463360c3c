"""Supervised fine-tuning: packed conversations, and a model that learns two by heart."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.hub.folders import chat_folder
import tfm
from tfm.cli import configfile, main
from tfm.core import config
from tfm.data import Conversations
from tfm.data.fixed_vocabulary import FixedVocabulary
from tfm.data.tokenizer import Byte
from tfm.hub.warm_start import warm_start
from tfm.model.spec import Block, Model, Segment
from tfm.model.transformer import apply, init
from tfm.optim import AdamW
from tfm.optim.schedule import Constant
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu
from tfm.parts.mixer import Attention
from tfm.parts.norm import RMSNorm
from tfm.parts.relative import RoPE
from tfm.tasks import CausalLM
from tfm.train import Experiment, Record, loop

PAIRS = {'Sky?': 'blue', 'Sun?': 'yellow'}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp('chat')
  turns = lambda q, a: [{'role': 'user', 'content': q}, {'role': 'assistant', 'content': a}]
  lines = [json.dumps({'messages': turns(q, a)}) for q, a in PAIRS.items()]
  (folder / 'chat.jsonl').write_text('\n'.join(lines))
  return Conversations(
    files=str(folder / 'chat.jsonl'), tokenizer=Byte(), length=96, batch=1, cache=str(folder)
  )


@pytest.fixture(scope='module')
def model():
  block = Block(Attention(heads=4, relative=RoPE()), Glu(d_ff=64), RMSNorm())
  return Model(embed=Tokens(260), d_model=32, segments=(Segment((block,), 2),))


def _features(data, lines, rows):
  """Return the first sequence of the conversations `lines`, repeated in a batch of `rows`."""
  folder = Path(data.cache)
  chosen = (folder / 'chat.jsonl').read_text().splitlines()[lines]
  file = folder / f'{lines.start}-{lines.stop}.jsonl'
  file.write_text('\n'.join(chosen))
  corpus = dataclasses.replace(data, files=str(file), batch=rows).open(CausalLM())
  raw = next(corpus.eval_batches('train', 1))
  features = CausalLM().features(raw, corpus)
  return {name: np.repeat(array, rows, 0) for name, array in features.items()}


def test_packed_losses_equal_separate_losses(data, model):
  params, task = init(model, jax.random.key(0)), CausalLM()
  first, second = _features(data, slice(0, 1), 1), _features(data, slice(1, 2), 1)
  separate = {name: np.concatenate([first[name], second[name]]) for name in first}
  packed = _features(data, slice(0, 2), 2)
  forward = jax.jit(lambda **inputs: apply(model, params, **inputs)['logits'])

  def losses(batch):
    logits = np.asarray(forward(**task.inputs(batch)))
    gold = np.take_along_axis(logits, batch['labels'][..., None], -1)[..., 0]
    return np.asarray(jax.nn.logsumexp(logits, -1)) - gold

  expected = losses(separate)[separate['weights'] > 0]
  assert len(expected) == sum(len(answer) + 1 for answer in PAIRS.values())
  found = losses(packed)[0][packed['weights'][0] > 0]
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_model_answers_the_conversations_that_it_learnt(data, model, tmp_path, capsys):
  x = Experiment(
    model=model, data=data, optim=AdamW(lr=1e-2, schedule=Constant(), decay=0.0), steps=100,
    save_every=100, eval_every=100, record=Record(sample=None),
  )  # fmt: skip
  loop.train(x, tmp_path / 'run', devices=jax.devices()[:1])
  capsys.readouterr()
  words = ['generate', f'--checkpoint={tmp_path / "run"}', '--chat', '--temperature=0']
  assert main.run([*words, '--prompt=Sky?', '--prompt=Sun?']) == 0
  assert capsys.readouterr().out.split() == list(PAIRS.values())
  m = tfm.load(tmp_path / 'run')
  again = [{'role': 'user', 'content': 'Sun?'}]
  assert m.chat(again, temperature=0) == 'yellow'


def test_chat_config_tunes_a_published_folder(data, tmp_path):
  folder = chat_folder(tmp_path / 'model')
  x = configfile.load(f'chat:{folder}', '--config')
  small = {
    'data.files': data.files, 'data.cache': data.cache, 'data.length': 64, 'data.batch': 1,
    'steps': 1, 'model.adapter': 'lora(rank=2)', 'optim.only': '*/lora/*',
  }  # fmt: skip
  for path, value in small.items():
    x = config.override(x, path, str(value))
  assert not config.violations(x)
  loop.train(x, tmp_path / 'run', warm_start=warm_start, devices=jax.devices()[:1])
  m, before = tfm.load(tmp_path / 'run'), tfm.load(folder)
  turns = [{'role': 'user', 'content': 'Sun?'}]
  assert m.chat_prompt(turns) == before.chat_prompt(turns)
  assert m.chat_options([], {}) == before.chat_options([], {})
  # `tfm eval` reads other conversations with the tokenizer of the checkpoint.
  other = dataclasses.replace(x.data, tokenizer=FixedVocabulary(m.tokenizer), length=32)
  assert other.open(x.task).vocabulary.same(m.tokenizer)
