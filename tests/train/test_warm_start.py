"""A run from another model uses its token tables where token ids agree."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.data.published import byte_pairs, vocabulary, word_pieces
from tests.train import tiny
from tfm.cli.train import warm_start
from tfm.core import config, errors
from tfm.data.tokenizer import Byte, Char
from tfm.hub.token_texts import TokenText, compare, rows_by_text, token_texts
from tfm.hub.warm_start import vocabulary_axes
from tfm.model.transformer import init
from tfm.parts.head import classify
from tfm.train import loop, saver

TABLE, HEAD = 'embed/table', 'head/head/kernel'


def run(tmp_path, name, text=tiny.WORDS, **changes):
  """Return the parameters after a step without effect, on a text of characters."""
  folder = tmp_path / name
  folder.mkdir()
  (folder / 'words.txt').write_text(text * 40)
  fields = {
    'steps': 1,
    'optim__lr': 1e-12,
    'optim__decay': 0.0,
    'model.heads.lm.tied': False,
    **changes,
  }
  x = tiny.experiment(folder, **fields)
  x = dataclasses.replace(x, data=dataclasses.replace(x.data, tokenizer=Char(), val_tail=0.0))
  x = config.override(x, 'model.embed.vocab', str(len(set(text))))
  return named(loop.train(x, folder / 'run', warm_start=warm_start).state['params'])


def named(tree):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(x) for path, x in leaves
  }


@pytest.fixture
def base(tmp_path):
  """Return the workdir of a run, its parameters and its characters."""
  return tmp_path / 'base' / 'run', run(tmp_path, 'base'), ''.join(sorted(set(tiny.WORDS)))


def test_same_vocabulary_is_kept_without_a_message(tmp_path, base, capsys):
  folder, params, _ = base
  found = run(tmp_path, 'next', init_from=folder)
  np.testing.assert_allclose(found[TABLE], params[TABLE], atol=1e-9)
  output = capsys.readouterr().out
  assert 'parameters of the model kept' in output
  assert 'token' not in output


def test_vocabulary_with_other_characters_is_an_error(tmp_path, base):
  text = tiny.WORDS.replace('a', 'z')
  characters = sorted(set(text))
  first = next(i for i, c in enumerate(base[2]) if c != characters[i])
  with pytest.raises(errors.UserError) as error:
    run(tmp_path, 'next', text, init_from=base[0])
  message = str(error.value)
  differ = sum(a != b for a, b in zip(base[2], characters, strict=True))
  assert f'{len(characters) - differ} of {len(characters)} shared token ids agree' in message
  assert (
    f'  id {first}: {base[2][first]!r} in the model, {characters[first]!r} in the data' in message
  )
  for choice in ('remap', 'new', 'keep'):
    assert f'init_vocab={choice}' in message


def test_remap_moves_rows_by_token_text(tmp_path, base, capsys):
  folder, params, old = base
  text = tiny.WORDS.replace('a', 'z') + 'é'
  found, new = run(tmp_path, 'next', text, init_from=folder, init_vocab='remap'), sorted(set(text))
  assert len(new) == len(old) + 1
  for i, character in enumerate(new):
    at = old.find(character)
    row = params[TABLE][at] if at >= 0 else params[TABLE].mean(0)
    column = params[HEAD][:, at] if at >= 0 else params[HEAD].mean(1)
    np.testing.assert_allclose(found[TABLE][i], row, atol=1e-6, err_msg=character)
    np.testing.assert_allclose(found[HEAD][:, i], column, atol=1e-6, err_msg=character)
  assert (
    f'{len(old) - 1} of {len(new)} tokens of the data match an old token' in capsys.readouterr().out
  )


def test_keep_preserves_rows_by_id(tmp_path, base, capsys):
  folder, params, _ = base
  found = run(tmp_path, 'next', tiny.WORDS.replace('a', 'z'), init_from=folder, init_vocab='keep')
  np.testing.assert_allclose(found[TABLE], params[TABLE], atol=1e-9)
  assert 'shared token ids agree. Rows keep their ids' in capsys.readouterr().out


def test_new_initialises_token_tables(tmp_path, base, capsys):
  folder, params, _ = base
  found = run(
    tmp_path, 'next', tiny.WORDS.replace('a', 'z'), init_from=folder, init_vocab='new', seed=3
  )
  assert np.abs(found[TABLE] - params[TABLE]).max() > 1e-3
  assert np.abs(found[HEAD] - params[HEAD]).max() > 1e-3
  np.testing.assert_allclose(found['norm/scale'], params['norm/scale'], atol=1e-9)
  assert f'2 new: {TABLE}, {HEAD}' in capsys.readouterr().out


def test_appended_tokens_keep_existing_rows(tmp_path, base, capsys):
  folder, params, old = base
  found = run(tmp_path, 'next', tiny.WORDS + '~', init_from=folder)
  np.testing.assert_allclose(found[TABLE][: len(old)], params[TABLE], atol=1e-9)
  np.testing.assert_allclose(found[TABLE][-1], params[TABLE].mean(0), atol=1e-6)
  said = capsys.readouterr().out
  assert f"all {len(old)} token ids agree. The data has new tokens ({len(old)} = '~')" in said


def test_init_vocab_without_init_from_is_an_error(tmp_path):
  x = dataclasses.replace(tiny.experiment(tmp_path), init_vocab='keep')
  assert list(x.check()) == [
    'init_vocab: is keep, but init_from is empty. Expected a model folder.'
  ]


def test_class_scores_are_not_a_token_table(tmp_path):
  model = tiny.experiment(tmp_path).model.with_heads(
    classify=classify.Classify(256, 'last'), lm=None
  )
  assert set(vocabulary_axes(model)) == {TABLE}


def test_token_texts_of_different_tokenizers_compare_equal():
  words, pairs = vocabulary(word_pieces()), vocabulary(byte_pairs('<|endoftext|>'))
  assert token_texts(Byte().learn(lambda split: ()))[97] == TokenText(b'a')
  for known in (words, pairs):
    assert TokenText(b' cat') in token_texts(known)
  assert TokenText(b'[CLS]', True) in token_texts(words)
  assert TokenText(b'<|endoftext|>', True) in token_texts(pairs)


def test_special_tokens_are_matched_by_role():
  old = vocabulary(byte_pairs('<|endoftext|>', '<|other|>'), eos='<|endoftext|>')
  new = vocabulary(byte_pairs('</s>', '<|other|>'), eos='</s>')
  rows = rows_by_text(old, new, compare(old, new), new.size + 2)
  assert rows[new.eos] == old.eos
  assert rows[new.inner.token_to_id('<|other|>')] == old.inner.token_to_id('<|other|>')
  assert rows[-2:].tolist() == [-1, -1]


def test_every_checkpoint_keeps_the_files_of_the_start(tmp_path):
  x = tiny.experiment(tmp_path, init_from='somewhere', save_every=1, record__keep=1)
  content = b'\x00 any bytes'
  started = []

  def start(x, known, where, say):
    started.append(known)
    params = jax.jit(lambda key: init(x.model, key), out_shardings=where)(jax.random.key(0))
    return params, {'published/deep/file': content}

  for steps in (2, 4):
    loop.train(dataclasses.replace(x, steps=steps), tmp_path / 'run', warm_start=start)
    about = tmp_path / 'run' / 'checkpoints' / str(steps) / 'about'
    assert (about / 'published' / 'deep' / 'file').read_bytes() == content
  assert len(started) == 1


def test_files_of_the_start_are_kept_only_where_ids_agree(tmp_path, base):
  folder, _, _ = base
  folder = folder / 'checkpoints' / '1'
  (folder / 'about' / 'tokens.json').write_text('{"config.json": {"eos_token_id": 3}}')
  run(tmp_path, 'same', init_from=folder)
  run(tmp_path, 'other', tiny.WORDS.replace('a', 'z'), init_from=folder, init_vocab='remap')
  checkpoint = lambda name: tmp_path / name / 'run' / 'checkpoints' / '1'
  kept = lambda name: saver.read_extra_files(checkpoint(name) / 'about')
  assert b'"eos_token_id": 3' in b''.join(kept('same').values())
  assert not kept('other')
