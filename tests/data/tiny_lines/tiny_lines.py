import numpy as np
import tensorflow_datasets as tfds


class TinyLines(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    features = {'text': tfds.features.Text(), 'number': tfds.features.Scalar(np.int64)}
    return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples(0, 20), 'test': self._generate_examples(20, 25)}

  def _generate_examples(self, start, stop):
    for i in range(start, stop):
      yield i, {'text': f'line {i} é\n', 'number': i}
