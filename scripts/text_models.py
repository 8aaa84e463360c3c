"""Write tfm/zoo/TEXT_MODELS.md: the text model types of transformers that tfm supports.

    python scripts/text_models.py    # needs transformers and PyTorch, but no weights

The types are those of transformers' mappings for causal, masked and sequence-to-sequence language
models. The script also prints types that are supported but still have a reason in `REASONS`.
"""

from collections.abc import Iterator
import pathlib
import sys
from typing import NamedTuple

from tfm.cli.sheets import Sheet
from tfm.hub.multimodal import MULTIMODAL
from tfm.zoo import weights

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / 'tfm' / 'zoo' / 'TEXT_MODELS.md'

MAPPINGS = {
  'causal': 'MODEL_FOR_CAUSAL_LM_MAPPING_NAMES',
  'masked': 'MODEL_FOR_MASKED_LM_MAPPING_NAMES',
  'seq2seq': 'MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES',
}

#: Type -> the `model_type` of its published configs.
WRITTEN_AS = {'gpt-sw3': 'gpt2'}

#: Why types are unsupported: sentence -> types.
REASONS = {
  'A dense model that tfm has all parts for; the spec is not written yet.': """
    bert-generation cohere_compass_text esmc ernie gte internlm3 iquestcoder
    jina_embeddings_v3 megatron-bert rembert roc_bert ultrabert
    granite_swa blenderbot-small plbart mvp
    """,
  'A mixture of experts; the spec is not written yet.': """
    afmoe aria_text axk1 cohere2_moe exaone_moe flex_olmo flint glm4_moe_lite
    granitemoe_swa hy_v3 jetmoe kolibri1 laguna mellum mimo_v2_flash minimax_m2
    nllb-moe solar_open longcat_flash
    """,
  'Layers with a recurrent state or a short convolution that tfm lacks.': """
    bailing_hybrid kimi_linear lfm2_moe lfm3
    nemotron_h olmo_hybrid qwen4_exp
    qwen4_exp_text rwkv xlstm zamba zamba2
    """,
  'Attention that selects or compresses keys by learned scores.': """
    axk2 beam deepseek_v32 deepseek_v4 dots3_note dots3_note_text glm_moe_dsa hy_v4
    minimax_m3_vl_text zaya
    """,
  'Attention by blocks, hashing, landmarks or pooling that tfm lacks.': """
    big_bird funnel mra nystromformer perceiver reformer yoso
    """,
  'An architecture with blocks that tfm lacks.': """
    blt cpmant diffllama doge gemma4 gemma4_assistant
    gemma4_text gemma4_unified
    gemma4_unified_assistant gemma4_unified_text hrm_text inkling2_text inkling_text
    neomme t5gemma2
    """,
  'A decoder with several streams that predict later tokens.': 'prophetnet',
  'A multimodal model; tfm does not extract its language model.': """
    audioflamingo3 emu3 fuyu git glmasr got_ocr2 granite_speech granite_speech_plus layoutlm mllama
    modernvbert
    moss_transcribe_diarize musicflamingo nemo_speechlm phi4_multimodal qwen2_audio qwen3_asr
    tapas trocr
    ultravbert vibevoice_asr voxtral voxtral_realtime
    """,
  'Generates audio, or translates speech.': """
    moshi musicgen musicgen_melody seamless_m4t seamless_m4t_v2
    """,
}

#: Why a class of a type is unsupported: sentence -> (mapping, types).
CLASS_REASONS = {
  'The decoder of an encoder-decoder without its encoder.': (
    'causal',
    """
    bart blenderbot blenderbot-small bigbird_pegasus marian mbart mvp pegasus plbart
    prophetnet trocr whisper
    """,
  ),
  'The language model of a multimodal type; published folders have the whole model.': (
    'causal',
    'llama4 qwen3_5 qwen3_5_moe',
  ),
  'An encoder run as a decoder.': (
    'causal',
    """
    big_bird data2vec-text ernie megatron-bert rembert roberta-prelayernorm roc_bert xlm-roberta-xl
    reformer
    """,
  ),
}


class Row(NamedTuple):
  """A class of a model type.

  Attributes:
    kind: the `model_type`.
    mapping: the mapping of transformers that lists it.
    architecture: name of the class.
    read: whether tfm supports it.
    reason: why it is unsupported, '' if `REASONS` has none.
  """

  kind: str
  mapping: str
  architecture: str
  read: bool
  reason: str


def reads(kind: str, architecture: str) -> bool:
  """Return whether tfm supports folders of this `model_type` and class."""
  if kind in MULTIMODAL:
    return MULTIMODAL[kind].architecture == architecture
  kind = WRITTEN_AS.get(kind, kind)
  if kind not in weights.TABLE:
    return False
  family: weights.Family = weights.TABLE[kind]
  return architecture in [family.stem + ending for ending in family.endings]


def reason(kind: str, mapping: str) -> str:
  """Return why a class is unsupported, '' if there is no reason."""
  for sentence, (of, kinds) in CLASS_REASONS.items():
    if mapping == of and kind in kinds.split():
      return sentence
  return next((sentence for sentence, kinds in REASONS.items() if kind in kinds.split()), '')


def rows() -> Iterator[Row]:
  """Yield every class of every text model type, sorted by type."""
  from transformers.models.auto import modeling_auto

  found = {mapping: dict(getattr(modeling_auto, name)) for mapping, name in MAPPINGS.items()}
  for kind in sorted({kind for classes in found.values() for kind in classes}):
    for mapping, classes in found.items():
      names = classes.get(kind, ())
      for name in (names,) if isinstance(names, str) else names:
        yield Row(kind, mapping, name, reads(kind, name), reason(kind, mapping))


def page() -> str:
  """Return the text of the page."""
  import transformers

  all_rows = list(rows())
  kinds = {row.kind for row in all_rows}
  known = {row.kind for row in all_rows if row.read}
  reasons = sorted({row.reason for row in all_rows if not row.read})
  number = {sentence: str(i) for i, sentence in enumerate(reasons, 1)}
  read = [(f'`{r.kind}`', f'`{r.architecture}`', r.mapping) for r in all_rows if r.read]
  left = [
    (f'`{r.kind}`', f'`{r.architecture}`', r.mapping, f'reason {number[r.reason]}')
    for r in all_rows
    if not r.read
  ]
  head = f"""# Text models

Written by `python scripts/text_models.py`. tfm supports {len(known)} of the {len(kinds)} model
types of transformers {transformers.__version__} with a class for causal, masked or
sequence-to-sequence language modeling. Of multimodal types, `tfm.load` opens the language model.
Other heads of a family are in [MODELS.md](MODELS.md).
"""
  sheets = (
    Sheet('Reasons', ('reason', 'why'), tuple((f'reason {number[s]}', s) for s in reasons)),
    Sheet('Supported', ('model_type', 'class', 'mapping'), tuple(read)),
    Sheet('Not supported', ('model_type', 'class', 'mapping', 'reason'), tuple(left)),
  )
  return '\n'.join([head, *(sheet.markdown() for sheet in sheets)])


def stale() -> list[str]:
  """Return the types that have a reason although all of their classes are supported."""
  left = {row.kind for row in rows() if not row.read}
  named = {kind for kinds in REASONS.values() for kind in kinds.split()}
  return sorted(named - left)


if __name__ == '__main__':
  PAGE.write_text(page(), 'utf-8')
  if unneeded := stale():
    print(
      'text_models: supported types in REASONS. Expected unsupported ones only. '
      f'Delete {", ".join(unneeded)}.',
      file=sys.stderr,
    )
