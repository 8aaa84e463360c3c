"""Every family whose checkpoints are read and written, by its `model_type`; a new one is a new file
and a new row.
"""

from collections.abc import Collection, Mapping
import difflib
from typing import Any, NamedTuple

from tfm.core import config, errors
from tfm.core.registry import Table
from tfm.model.spec import Model
from tfm.zoo.fields import Fields
from tfm.zoo.weights import (
  albert,
  apertus,
  arcee,
  bamba,
  bart,
  bert,
  bigbird_pegasus,
  biogpt,
  blenderbot,
  blenderbot_small,
  bloom,
  clip,
  codegen,
  cohere,
  convbert,
  ctrl,
  cwm,
  dbrx,
  deberta,
  deberta_v2,
  deepseek,
  deit,
  dinov2,
  distilbert,
  dots1,
  electra,
  encoder_decoder,
  ernie,
  ernie4_5,
  ernie4_5_moe,
  esm,
  eurobert,
  exaone4,
  falcon,
  falcon_h1,
  fnet,
  fsmt,
  gemma,
  gemma2,
  gemma3,
  glm,
  glm4,
  glm4_moe,
  gpt1,
  gpt2,
  gpt_bigcode,
  gpt_neo,
  gpt_neox,
  gpt_neox_japanese,
  gpt_oss,
  gptj,
  granite,
  granitemoe,
  granitemoehybrid,
  helium,
  hunyuan_v1_dense,
  hunyuan_v1_moe,
  hyperclovax,
  jais2,
  jamba,
  led,
  lfm2,
  llama,
  llama4,
  longformer,
  longt5,
  luke,
  m2m_100,
  mamba,
  marian,
  mbart,
  megatron_bert,
  minicpm3,
  ministral,
  ministral3,
  mistral,
  mixtral,
  mobilebert,
  modernbert,
  modernbert_decoder,
  mpnet,
  mpt,
  mt5,
  mvp,
  nanochat,
  nemotron,
  nomic_bert,
  olmo,
  olmo2,
  olmo3,
  olmoe,
  opt,
  pegasus,
  pegasus_x,
  persimmon,
  phi,
  phi3,
  phimoe,
  plbart,
  qwen2,
  qwen2_moe,
  qwen3,
  qwen3_5,
  qwen3_moe,
  qwen3_next,
  recurrent_gemma,
  rembert,
  roberta,
  roberta_prelayernorm,
  roformer,
  seed_oss,
  siglip,
  smollm3,
  squeezebert,
  stablelm,
  starcoder2,
  switch_transformers,
  t5,
  t5gemma,
  umt5,
  vaultgemma,
  vit,
  whisper,
  xglm,
  xlm,
  xlm_roberta_xl,
  xlnet,
  xmod,
  youtu,
)
from tfm.zoo.weights.family import Family as Family
from tfm.zoo.weights.family import Tensor as Tensor
from tfm.zoo.weights.family import tensor_map as tensor_map

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
    'ernie': ernie.FAMILY,
    'megatron-bert': megatron_bert.FAMILY,
    'data2vec-text': roberta.DATA2VEC,
    'ibert': roberta.IBERT,
    'roberta-prelayernorm': roberta_prelayernorm.FAMILY,
    'xlm-roberta-xl': xlm_roberta_xl.FAMILY,
    'rembert': rembert.FAMILY,
    'esm': esm.FAMILY,
    'eurobert': eurobert.FAMILY,
    'xlm': xlm.FAMILY,
    'flaubert': xlm.FLAUBERT,
    'deberta': deberta.FAMILY,
    'luke': luke.FAMILY,
    'longformer': longformer.FAMILY,
    'xmod': xmod.FAMILY,
    'squeezebert': squeezebert.FAMILY,
    'convbert': convbert.FAMILY,
    'mobilebert': mobilebert.FAMILY,
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
    'persimmon': persimmon.FAMILY,
    'xglm': xglm.FAMILY,
    'biogpt': biogpt.FAMILY,
    'ctrl': ctrl.FAMILY,
    'gpt_neox_japanese': gpt_neox_japanese.FAMILY,
    'modernbert-decoder': modernbert_decoder.FAMILY,
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
    'glm': glm.FAMILY,
    'olmo3': olmo3.FAMILY,
    'arcee': arcee.FAMILY,
    'helium': helium.FAMILY,
    'seed_oss': seed_oss.FAMILY,
    'ministral': ministral.FAMILY,
    'ministral3': ministral3.FAMILY,
    'apertus': apertus.FAMILY,
    'nanochat': nanochat.FAMILY,
    'hunyuan_v1_dense': hunyuan_v1_dense.FAMILY,
    'minicpm3': minicpm3.FAMILY,
    'cwm': cwm.FAMILY,
    'hyperclovax': hyperclovax.FAMILY,
    'jais2': jais2.FAMILY,
    'youtu': youtu.FAMILY,
    'vaultgemma': vaultgemma.FAMILY,
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
    'blenderbot-small': blenderbot_small.FAMILY,
    'plbart': plbart.FAMILY,
    'mvp': mvp.FAMILY,
    'led': led.FAMILY,
    'encoder-decoder': encoder_decoder.FAMILY,
    'marian': marian.FAMILY,
    'm2m_100': m2m_100.FAMILY,
    'fsmt': fsmt.FAMILY,
    'bigbird_pegasus': bigbird_pegasus.FAMILY,
    'pegasus_x': pegasus_x.FAMILY,
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
  """The model of a config: its family, the ending of its class's name, its spec; and the ignored
  fields.
  """

  family: Family
  ending: str
  spec: Model
  ignored: tuple[str, ...] = ()

  @property
  def architecture(self) -> str:
    return self.family.stem + self.ending


def published(
  values: Mapping[str, Any], where: str = 'config.json', ignore: Collection[str] | None = ()
) -> Published:
  """Return the model of a published config.

  Args:
    values: the fields of the config.
    where: the name of the file for errors.
    ignore: names of unknown fields to leave out; None leaves out all of them, for a config that was
    read before.

  Raises:
    UserError: for an unknown `model_type` or class; for a field that the family does not read,
      unless its value changes nothing (`tfm.zoo.bookkeeping`) or it is ignored; for an ignored
      field that the family reads.
  """
  c = Fields(values, where)
  kind = c.get('model_type')
  if kind is None:
    raise errors.UserError(
      f'{where}: model_type is missing. Expected one that tfm reads, such as llama or bert.'
    )
  if kind not in TABLE:
    raise errors.UserError(f'{where}: {errors.unknown("model_type", kind, TABLE)}')
  family: Family = TABLE[kind]
  ending = (c.get('architectures') or [family.head])[0]
  if ending.lower().startswith(
    family.stem.lower()
  ):  # MPT's own code has capitals that transformers has not
    ending = ending[len(family.stem) :]
  if ending not in family.endings:
    known = [family.stem + other for other in family.endings]
    raise errors.UserError(
      f'{where}: architectures is {ending!r}, no class of model_type {kind!r}. Expected '
      f'{", ".join(known)}.'
    )
  spec = family.spec(c, ending)
  unread = c.unread()
  if ignore is None:
    return Published(family, ending, _valid(spec, where), tuple(unread))
  if absent := sorted(set(ignore) - {*values, *unread, *c.read_names()}):
    raise errors.UserError(
      f'{where}: {errors.unknown("field", absent[0], values)} Expected a field of it to ignore.'
    )
  if read := sorted(set(ignore) & c.read_names()):
    raise errors.UserError(
      f'{where}: {read[0]}: cannot be ignored, since a {family.stem} is computed with it. Expected '
      f'only fields that '
      'are not known.'
    )
  if left := {name: value for name, value in unread.items() if name not in ignore}:
    raise errors.UserError(f'{where}: {_unknown(kind, left, c)}')
  return Published(
    family, ending, _valid(spec, where), tuple(name for name in unread if name in ignore)
  )


def _valid(spec: Model, where: str) -> Model:
  """Return the spec. Raises UserError, with the name of the file, for a model that cannot be."""
  try:
    return config.validate(spec)
  except errors.ConfigError as error:
    lines = '\n'.join(f'  {line}' for line in str(error).splitlines())
    raise errors.UserError(f'{where}: describes a model that cannot be:\n{lines}') from error


def _unknown(kind: str, left: Mapping[str, Any], c: Fields) -> str:
  """Return the sentences about fields that no family reads, with the near names of those that this
  one reads.
  """
  given = ', '.join(f'{name}={value!r}' for name, value in left.items())
  near = [
    n
    for name in left
    for n in difflib.get_close_matches(name, sorted(c.read_names() - set(left)), 1, 0.7)
  ]
  hint = f' Did you mean {" and ".join(dict.fromkeys(near))}?' if near else ''
  names = tuple(left)
  return (
    f'{given}: not known of model_type {kind!r}, and may change what is computed. Expected fields '
    f'of a '
    f'{TABLE[kind].stem}.{hint} Where they change nothing, tfm.load(path, ignore={names!r}) or '
    f'--ignore_fields={",".join(names)} reads the folder without them.'
  )
