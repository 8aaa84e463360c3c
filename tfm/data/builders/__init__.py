"""TFDS builders of data sets that come in packages, from files that you point at.

They need `tfm[tfds]` and no TensorFlow. `tfds(name=NAME, manual_dir=FOLDER)` prepares one, and so
does `tfds.builder(NAME)` after an import of its module.
"""

#: The module of each builder, by its TFDS name.
MODULES = {
  'cmudict': 'tfm.data.builders.cmudict',
  'fashion_mnist_idx': 'tfm.data.builders.fashion_mnist_idx',
  'jane_austen': 'tfm.data.builders.jane_austen',
  'kjv_rv1909': 'tfm.data.builders.kjv_rv1909',
  'state_of_the_union': 'tfm.data.builders.state_of_the_union',
}
