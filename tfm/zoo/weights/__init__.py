"""Every family whose checkpoints are read and written, by its `model_type`; a new one is a new file and a new row."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tfm.core import config, errors
from tfm.core.registry import Table
from tfm.model.spec import Model
from tfm.zoo.fields import Fields
from tfm.zoo.weights import (
  albert,
  bamba,
  bart,
  bert,
  blenderbot,
  bloom,
  clip,
  codegen,
  cohere,
  dbrx,
  deberta_v2,
  deepseek,
  deit,
  dinov2,
  distilbert,
  dots1,
  electra,
  ernie4_5,
  ernie4_5_moe,
  exaone4,
  falcon,
  falcon_h1,
  fnet,
  fsmt,
  gemma,
  gemma2,
  gemma3,
  glm4,
  glm4_moe,
  gpt1,
  gpt2,
  gpt_bigcode,
  gpt_neo,
  gpt_neox,
  gpt_oss,
  gptj,
  granite,
  granitemoe,
  granitemoehybrid,
  hunyuan_v1_moe,
  jamba,
  lfm2,
  llama,
  llama4,
  longt5,
  m2m_100,
  mamba,
  marian,
  mbart,
  mistral,
  mixtral,
  modernbert,
  mpnet,
  mpt,
  mt5,
  nemotron,
  nomic_bert,
  olmo,
  olmo2,
  olmoe,
  opt,
  pegasus,
  phi,
  phi3,
  phimoe,
  qwen2,
  qwen2_moe,
  qwen3,
  qwen3_5,
  qwen3_moe,
  qwen3_next,
  recurrent_gemma,
  roberta,
  roformer,
  siglip,
  smollm3,
  stablelm,
  starcoder2,
  switch_transformers,
  t5,
  t5gemma,
  umt5,
  vit,
  whisper,
  xlnet,
)
from tfm.zoo.weights.family import Family as Family
from tfm.zoo.weights.family import Tensor as Tensor
from tfm.zoo.weights.family import plan as plan

#: A spec that several families say is exported as the first of them.
TABLE = Table(
  'model_type',
  **{
    # Encoders.
    'bert': bert.FAMILY,
    'roberta': roberta.FAMILY,
    'camembert': roberta.CAMEMBERT,
    'xlm-roberta': roberta.XLM,
    'distilbert': distilbert.FAMILY,
    'albert': albert.FAMILY,
    'electra': electra.FAMILY,
    'mpnet': mpnet.FAMILY,
    'deberta-v2': deberta_v2.FAMILY,
    'xlnet': xlnet.FAMILY,
    'roformer': roformer.FAMILY,
    'fnet': fnet.FAMILY,
    'nomic_bert': nomic_bert.FAMILY,
    'modernbert': modernbert.FAMILY,
    # Decoders, GPT's kin.
    'openai-gpt': gpt1.FAMILY,
    'gpt2': gpt2.FAMILY,
    'gpt_neo': gpt_neo.FAMILY,
    'gptj': gptj.FAMILY,
    'gpt_neox': gpt_neox.FAMILY,
    'codegen': codegen.FAMILY,
    'opt': opt.FAMILY,
    'bloom': bloom.FAMILY,
    'gpt_bigcode': gpt_bigcode.FAMILY,
    'mpt': mpt.FAMILY,
    'falcon': falcon.FAMILY,
    'phi': phi.FAMILY,
    'stablelm': stablelm.FAMILY,
    'cohere': cohere.FAMILY,
    'cohere2': cohere.SECOND,
    'nemotron': nemotron.FAMILY,
    # Decoders, Llama's kin.
    'llama': llama.FAMILY,
    'mistral': mistral.FAMILY,
    'qwen2': qwen2.FAMILY,
    'gemma': gemma.FAMILY,
    'gemma2': gemma2.FAMILY,
    'gemma3_text': gemma3.FAMILY,
    'olmo': olmo.FAMILY,
    'olmo2': olmo2.FAMILY,
    'phi3': phi3.FAMILY,
    'starcoder2': starcoder2.FAMILY,
    'granite': granite.FAMILY,
    'qwen3': qwen3.FAMILY,
    'glm4': glm4.FAMILY,
    'smollm3': smollm3.FAMILY,
    'ernie4_5': ernie4_5.FAMILY,
    'exaone4': exaone4.FAMILY,
    # Mixtures of experts.
    'mixtral': mixtral.FAMILY,
    'qwen2_moe': qwen2_moe.FAMILY,
    'dbrx': dbrx.FAMILY,
    'deepseek_v2': deepseek.V2,
    'deepseek_v3': deepseek.V3,
    'olmoe': olmoe.FAMILY,
    'qwen3_moe': qwen3_moe.FAMILY,
    'glm4_moe': glm4_moe.FAMILY,
    'dots1': dots1.FAMILY,
    'granitemoe': granitemoe.FAMILY,
    'granitemoeshared': granitemoe.SHARED,
    'ernie4_5_moe': ernie4_5_moe.FAMILY,
    'phimoe': phimoe.FAMILY,
    'qwen3_next': qwen3_next.FAMILY,
    'qwen3_5_text': qwen3_5.FAMILY,
    'qwen3_5_moe_text': qwen3_5.MOE,
    'mamba': mamba.FAMILY,
    'mamba2': mamba.SECOND,
    'falcon_mamba': mamba.FALCON,
    'bamba': bamba.FAMILY,
    'granitemoehybrid': granitemoehybrid.FAMILY,
    'llama4_text': llama4.FAMILY,
    'recurrent_gemma': recurrent_gemma.FAMILY,
    'lfm2': lfm2.FAMILY,
    'falcon_h1': falcon_h1.FAMILY,
    'jamba': jamba.FAMILY,
    'hunyuan_v1_moe': hunyuan_v1_moe.FAMILY,
    'gpt_oss': gpt_oss.FAMILY,
    # Encoders with decoders.
    't5': t5.FAMILY,
    'mt5': mt5.FAMILY,
    'umt5': umt5.FAMILY,
    'longt5': longt5.FAMILY,
    'switch_transformers': switch_transformers.FAMILY,
    't5gemma': t5gemma.FAMILY,
    'bart': bart.FAMILY,
    'mbart': mbart.FAMILY,
    'pegasus': pegasus.FAMILY,
    'blenderbot': blenderbot.FAMILY,
    'marian': marian.FAMILY,
    'm2m_100': m2m_100.FAMILY,
    'fsmt': fsmt.FAMILY,
    # Images.
    'vit': vit.FAMILY,
    'deit': deit.FAMILY,
    'dinov2': dinov2.FAMILY,
    'dinov2_with_registers': dinov2.REGISTERS,
    # Text and images.
    'clip': clip.FAMILY,
    'clip_text_model': clip.TEXT_MODEL,
    'clip_vision_model': clip.IMAGE_MODEL,
    'siglip': siglip.FAMILY,
    'siglip_text_model': siglip.TEXT_MODEL,
    'siglip_vision_model': siglip.IMAGE_MODEL,
    # Speech.
    'whisper': whisper.FAMILY,
  },
)


class Published(NamedTuple):
  """What a config says: the family, how the name of its class ends, the spec."""

  family: Family
  ending: str
  spec: Model

  @property
  def architecture(self) -> str:
    return self.family.stem + self.ending


def published(values: Mapping[str, Any], where: str = 'config.json') -> Published:
  """What a published config says.

  Raises: UserError for an unknown `model_type` or class, and for fields that may change what is computed and that the
  family does not read.
  """
  c = Fields(values, where)
  kind = c.get('model_type')
  if kind not in TABLE:
    raise errors.UserError(f'{where}: {errors.unknown("model_type", kind, TABLE)}')
  family: Family = TABLE[kind]
  ending = (c.get('architectures') or [family.head])[0]
  if ending.lower().startswith(family.stem.lower()):  # MPT's own code has capitals that transformers has not
    ending = ending[len(family.stem) :]
  if ending not in family.endings:
    raise errors.UserError(f'{where}: {errors.unknown("class", ending, family.endings)} of {family.stem}.')
  spec = family.spec(c, ending)
  if unread := ', '.join(c.unread()):
    raise errors.UserError(
      f'{where}: {unread}: not known of model_type {kind!r}, and may change what is computed. Wanted the fields of '
      f'a {family.stem}; what is known to change nothing can be deleted from the file.'
    )
  return Published(family, ending, config.validate(spec))
