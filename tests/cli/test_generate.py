import json
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from tfm.cli import main
from tfm.data.tokenizer import ByteVocabulary
from tfm.model import transformer
from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.mixer.attention import Attention


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
  """Runs `tfm generate --checkpoint=there ...` with an untrained model: (status, out, err)."""
  from tfm.train import checkpoint

  spec = Model(Tokens(256), 16, (Segment((Block(Attention(2), Glu(16)),)),))
  loaded = checkpoint.Loaded(
    spec, transformer.init(spec, jax.random.key(0)), ByteVocabulary(), None, 7, Path('there')
  )
  for name in ('there', 'elsewhere', 'other'):
    (tmp_path / name / 'about').mkdir(parents=True)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(checkpoint, 'load', lambda path, *_: loaded)
  monkeypatch.setattr(main, 'COMMANDS', {'generate': SimpleNamespace(module='tfm.cli.generate')})

  def run(*words):
    status = main.run(['generate', '--checkpoint=there', '--max_new_tokens=5', *words])
    return status, *capsys.readouterr()

  return run


def test_prompts_are_printed_with_continuations(command, tmp_path):
  file = tmp_path / 'prompt.txt'
  file.write_text('for é', 'utf-8')
  status, out, err = command('--prompt=def ', f'--prompt_file={file}')
  assert status == 0, err
  assert out.startswith('def ')
  assert '\nfor é' in out


def test_streamed_text_equals_printed_text(command):
  assert command('--prompt=ab', '--stream')[1] == command('--prompt=ab')[1]
  assert command('--prompt=ab', '--seed=1')[1] != command('--prompt=ab')[1]


def test_json_has_prompt_and_text(command):
  _, out, _ = command('--prompt=ab', '--prompt=b', '--json', '--temperature=0')
  first, second = map(json.loads, out.splitlines())
  assert (first['prompt'], second['prompt']) == ('ab', 'b')
  assert command('--prompt=ab', '--temperature=0')[1] == 'ab' + first['text'] + '\n'
  stop = first['text'][2:]
  _, out, _ = command('--prompt=ab', '--temperature=0', f'--stop={stop}')
  assert out == 'ab' + first['text'].partition(stop)[0] + '\n'


def test_penalties_prevent_repetition(command):
  said = lambda *words: json.loads(command('--prompt=ab', '--json', '--temperature=0', *words)[1])[
    'text'
  ].encode()
  assert len(set(said())) < 5
  again = (
    '--no_repeat_ngram=1',
    '--repetition_penalty=1e9',
    '--frequency_penalty=1e9',
    '--presence_penalty=1e9',
  )
  assert [len(set(said(word))) for word in again] == [5] * 4


def test_cache_kind_and_prefill_keep_the_text(command, tmp_path):
  words = ('--prompt=abcdefgh', '--temperature=0')
  plain = command(*words)[1]
  assert command(*words, '--cache=paged(block=4)', '--prefill_chunk=3')[1] == plain
  file = tmp_path / 'kept'
  assert [command(*words, f'--prompt_cache={file}')[1] for _ in range(2)] == [plain] * 2
  status, _, err = command('--prompt=xyz', f'--prompt_cache={file}')
  assert status == 2
  assert 'kept: tokens differ: the file begins with [97, 98, 99, 100, 101, 102, 103, 104]' in err


@pytest.mark.parametrize('draft', ['ngram', 'elsewhere'])
def test_draft_keeps_greedy_text(command, draft):
  plain = command('--prompt=ab', '--temperature=0')
  assert command('--prompt=ab', '--temperature=0', f'--draft={draft}', '--draft_tokens=2') == plain
  assert command('--prompt=ab', '--temperature=0', f'--draft={draft}', '--stream') == plain


def test_weights_are_quantized_by_flag(command):
  pytest.importorskip('qwix')
  status, out, err = command('--prompt=ab', '--quantize=int8(skip=())')
  assert status == 0, err
  assert out.startswith('ab')
  status, _, err = command('--prompt=ab', '--quantize=int8', '--int8')
  assert (status, 'quantized already' in err) == (2, True)


def test_draft_with_another_vocabulary_is_refused(command, monkeypatch):
  from tfm.train import checkpoint

  loaded = checkpoint.load('there')
  found = {'there': loaded.tokenizer, 'other': loaded.tokenizer.with_specials(['eos'])}
  monkeypatch.setattr(
    checkpoint, 'load', lambda path, *_: loaded._replace(tokenizer=found[str(path)])
  )
  status, _, err = command('--prompt=ab', '--draft=other')
  assert status == 2
  assert (
    '--draft: the vocabulary of other differs from that of --checkpoint. Expected the same.' in err
  )


def test_beams_print_the_most_probable_text(command):
  status, out, err = command('--prompt=ab', '--prompt=b', '--json', '--temperature=0', '--beams=3')
  assert status == 0, err
  text = json.loads(out.splitlines()[0])['text']
  assert command('--prompt=ab', '--temperature=0', '--beams=3')[1] == f'ab{text}\n'
  stop = text[2:4]
  # The search ends texts there, so another one may be the likeliest.
  _, out, _ = command('--prompt=ab', '--json', '--temperature=0', '--beams=3', f'--stop={stop}')
  assert stop not in json.loads(out)['text']
  assert (
    command('--prompt=ab', '--temperature=0', '--beams=3', '--stop=never said')[1] == f'ab{text}\n'
  )


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (('--prompt=a', '--cache=rign'), "--cache: unknown cache 'rign'. Did you mean 'ring'"),
    ((), '--prompt: is missing. Expected text to continue, here or in a --prompt_file.'),
    (
      ('--prompt=a', '--top_p=2'),
      'tfm generate: generate: top_p=2.0 is not a probability.',
    ),
    (('--prompt=a', '--no_repeat_ngram=0'), 'no_repeat_ngram=0 is too small.'),
    (('--prompt=',), 'generate: prompt 0 is empty. Expected at least one token.'),
    (('--prompt_file=/nowhere.txt',), '/nowhere.txt: No such file or directory'),
    (('--prompt=a', '--draft=mtp'), 'generate: draft: the model has no mtp.'),
    (
      ('--prompt=a', '--beams=2', '--temperature=1'),
      'beams=2 cannot be combined with sampling (temperature=1.0). Expected temperature=0.',
    ),
    (
      ('--prompt=a', '--beams=2', '--stream'),
      '--stream: prints one text while it is generated. Expected one prompt',
    ),
    (
      ('--prompt=a', '--json', '--stream'),
      '--stream: prints one text while it is generated. Expected one prompt, no --json',
    ),
  ],
)
def test_mistake_is_one_message_and_status_2(command, words, message):
  status, out, err = command(*words)
  assert (status, out) == (2, '')
  assert message in err


def test_binary_prompt_file_is_refused(command, tmp_path):
  file = tmp_path / 'prompt.bin'
  file.write_bytes(b'ab\xff')
  status, _, err = command(f'--prompt_file={file}')
  assert status == 2
  assert 'prompt.bin is not UTF-8 text (byte 2)' in err
