import jax
import pytest

from tfm.cli import main, train
from tfm.data.tokenizer import Byte
from tfm.model import transformer
from tfm.model.spec import Block, Model, Segment
from tfm.parts.absolute import Learned
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.mixer.attention import Attention
from tfm.train.experiment import Sample
from tfm.train.recover import PREEMPTED, Stopped


def test_train_gets_the_config_of_file_and_flags(file, trained, capsys):
  words = [
    'train',
    f'--config={file}:big',
    '--config.optim.lr=3e-4',
    '--config..steps',
    '7',
    '--workdir=there',
  ]
  assert main.run(words) == 0, capsys.readouterr().err
  ((experiment, workdir, _),) = trained
  assert (experiment.name, experiment.steps, experiment.optim.lr, workdir) == (
    'big',
    7,
    3e-4,
    'there',
  )


def test_wrong_setting_stops_before_training(file, trained, capsys):
  assert main.run(['train', f'--config={file}', '--config.optm.lr=3', '--workdir=there']) == 2
  assert "config: unknown field 'optm'. Did you mean 'optim'?" in capsys.readouterr().err
  assert not trained


@pytest.mark.parametrize('debug', [False, True])
def test_stopped_run_exits_with_its_status(file, trained, capsys, debug):
  trained.error = Stopped(PREEMPTED, 'step 3 is saved.')
  assert (
    main.run(['train', f'--config={file}', '--workdir=there', f'--debug={str(debug).lower()}'])
    == PREEMPTED
  )
  err = capsys.readouterr().err
  assert err.endswith('tfm train: step 3 is saved.\n')
  assert ('Traceback' in err) == debug


def test_sample_stays_within_positions_and_vocabulary():
  vocabulary = Byte().learn(lambda split: iter(()))
  model = Model(Tokens(512), 16, (Segment((Block(Attention(2), Glu(16)),)),), Learned(8))
  text = train.write(
    model, transformer.init(model, jax.random.key(0)), vocabulary, Sample('ab', 100, 5.0)
  )
  assert text.startswith('ab')
  assert len(text) <= 8
