from tfm.cli import main


def test_train_is_called_with_the_config_of_the_file_and_the_flags(file, trained, capsys):
  words = ['train', f'--config={file}:big', '--config.optim.lr=3e-4', '--config..steps', '7', '--workdir=there']
  assert main.run(words) == 0, capsys.readouterr().err
  ((experiment, workdir),) = trained
  assert (experiment.name, experiment.steps, experiment.optim.lr, workdir) == ('big', 7, 3e-4, 'there')


def test_a_wrong_setting_stops_before_training(file, trained, capsys):
  assert main.run(['train', f'--config={file}', '--config.optm.lr=3', '--workdir=there']) == 2
  assert "config: unknown field 'optm'. Did you mean 'optim'?" in capsys.readouterr().err
  assert not trained
