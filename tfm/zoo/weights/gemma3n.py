"""Checkpoints of the language model of Gemma 3n: Gemma 2's names, and names of new parts."""

from tfm.zoo import gemma3n
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.layers import layers_of
from tfm.zoo.weights import gemma2
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Whole

_LAYER = 'model.layers.*'

_NAMES: Names = {
  **gemma2.NAMES,
  'embed/layer_table': Whole('model.embed_tokens_per_layer.weight'),
  'embed/layer_project': 'model.per_layer_model_projection',
  'embed/layer_norm': 'model.per_layer_projection_norm',
  '*/altup/norm': f'{_LAYER}.altup.router_norm',
  '*/altup/route': f'{_LAYER}.altup.modality_router',
  '*/altup/predictor': f'{_LAYER}.altup.prediction_coefs',
  '*/altup/corrector': f'{_LAYER}.altup.correction_coefs',
  '*/altup/scale': Whole(f'{_LAYER}.altup.correct_output_scale'),
  '*/altup/input_gate': f'{_LAYER}.per_layer_input_gate',
  '*/altup/input_project': f'{_LAYER}.per_layer_projection',
  '*/altup/input_norm': f'{_LAYER}.post_per_layer_input_norm',
  '*/laurel/left': f'{_LAYER}.laurel.linear_left',
  '*/laurel/right': f'{_LAYER}.laurel.linear_right',
  '*/laurel/norm': f'{_LAYER}.laurel.post_laurel_norm',
}


def names(m: FamilyModel) -> Names:
  """Return the tensor names of a spec; checkpoints count the other streams from 0."""
  ways = {'in': 'altup_projections', 'out': 'altup_unembed_projections'}
  others = range(1, m.residual.streams)
  return {
    **_NAMES,
    **{
      f'residual/{way}_{i}': f'model.{name}.{i - 1}' for way, name in ways.items() for i in others
    },
  }


def ignored(m: FamilyModel) -> tuple[str, ...]:
  """Return patterns of stored key and value projections that the last layers do not use."""
  numbers = [str(i) for i, block in enumerate(layers_of(m)) if block.mixer.lender]
  return (rf'layers\.({"|".join(numbers)})\.self_attn\.[kv]_(proj|norm)\.',) if numbers else ()


FAMILY = Family('Gemma3n', gemma3n.read, gemma3n.write, names, body='TextModel', ignored=ignored)
