"""Training. `loop.train(experiment, workdir)` is the entry point."""

from tfm.train.experiment import Experiment, Record, Recover, Sample
from tfm.train.mesh import Mesh

__all__ = ['Experiment', 'Mesh', 'Record', 'Recover', 'Sample']
