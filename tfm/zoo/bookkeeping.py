"""Fields of a `config.json` that cannot change a model's outputs, by purpose.

`is_neutral` accepts a field of these tables, a value that turns a feature off, and a default that
changes nothing. A family may still read a field of the tables. The rule applies to fields that it
does not read.
"""

import re
from typing import Any


def _names(text: str) -> frozenset[str]:
  return frozenset(text.split())


#: Metadata of `transformers` and the Hub: the file, the class, the format of outputs.
FILE = _names("""
  _class_name _commit_hash _diffusers_version _name_or_path author base_model dataset datasets
  description language languages model_version tags version name_or_path architectures auto_map
  custom_pipelines finetuning_task keys_to_ignore_at_inference library_name license model_type
  output_attentions output_hidden_states output_past output_router_logits prefix return_dict
  task_specific_params tfm_version tie_last_hidden_states tokenizer_class transformers_version
  transformers.js_config transformers_weights base_model_tp_plan base_model_pp_plan
""")
#: Storage of tensors and choice of kernels: equal outputs up to rounding.
STORAGE = _names("""
  _attn_implementation _attn_implementation_autoset _attn_implementation_internal
  _experts_implementation _experts_implementation_internal _flash_attn_2_enabled
  _flash_attn_2_enabled_internal attn_implementation attention_implementation cache_implementation
  chunk_size_feed_forward compression_config dtype enable_flash_attn experts_implementation
  moe_implementation quantization_config reorder_and_upcast_attn tensor_parallel torch_dtype bf16
  fp16 fp32 precision device_map model_parallel model_parallel_size flash_attn torchscript
  pretraining_tp use_bfloat16 use_flash_attn use_flash_attention use_flash_attention_2
  use_flash_attn_2 use_sdpa flash_attention use_cache use_cache_kernel use_cache_quantization
  use_parallel_loss use_memory_efficient_attention unpad_inputs fused_dense fused_mlp fused_bias_fc
  fused_dropout_add_ln use_xentropy use_fused_rmsnorm use_fused_swiglu use_fused_rope use_cuda_graph
  pad_vocab_size_multiple
""")
#: Special tokens, labels, the tokenizer, and lengths that size no position table.
TOKENS = _names("""
  additional_special_tokens cls_token mask_token sep_token unk_token pad_to_multiple_of
  context_length max_seq_len max_seq_length seq_len seq_length sequence_length train_seq_len
  vocab_file bos_token bos_token_id cls_token_id decoder_start_token_id eod_token_id eos_token
  eos_token_id eos_token_ids id2label im_end_token_id image_token_id image_token_index label2id
  label_smoothing lang_ids mask_token_id num_labels _num_labels pad_token pad_token_id
  pad_token_type_id problem_type sep_token_id tokenizer_file tokenizer_name unk_token_id
  is_encoder_decoder model_max_length max_sequence_length token_healing
""")
#: Initialization, losses and schedules of training.
TRAINING = _names("""
  activation_checkpointing classifier_dropout gradient_checkpointing init_method_std init_std
  initializer_factor initializer_range embedding_initializer_range initializer
  initializer_cutoff_factor label_smoothing_factor pruned_heads router_aux_loss_coef
  router_jitter_noise router_z_loss_coef scale_init_by_depth replacing_rate save_step seed
  tf_legacy_loss use_gradient_checkpointing zloss_coefficient loss_type
""")
#: Settings of generation.
GENERATION = _names("""
  assistant_confidence_threshold assistant_lookbehind bad_words_ids begin_suppress_tokens
  diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size encoder_repetition_penalty
  epsilon_cutoff eta_cutoff exponential_decay_length_penalty force_bos_token_to_be_generated
  forced_bos_token_id forced_decoder_ids forced_eos_token_id guidance_scale length_penalty
  low_memory max_length max_new_tokens min_length min_new_tokens no_repeat_ngram_size
  num_assistant_tokens num_assistant_tokens_schedule num_beam_groups num_beams num_return_sequences
  output_scores penalty_alpha remove_invalid_values renormalize_logits repetition_penalty
  return_dict_in_generate suppress_tokens target_lookbehind temperature top_k top_p typical_p
  user_defined_symbols
""")
#: Metadata of other programs: nanotron, Unsloth, axolotl, mergekit, MLX, DeepSpeed, vLLM, Ollama.
PROGRAMS = _names("""
  is_llama_config mergekit_config merge_config nanotron_version axolotl_version axolotl_config
  quantization lora_rank peft_type ds_config deepspeed vllm_version mlx_version ollama_version
  llama_factory_version finetuned_from model_name model_id hub_model_id name wandb_run_id
  training_args
""")
SILENT = FILE | STORAGE | TOKENS | TRAINING | GENERATION | PROGRAMS

#: Prefixes of fields that other programs add.
_PREFIXES = re.compile(
  r'(unsloth|_unsloth|axolotl|mergekit|nanotron|mlx|wandb|transformers\.js|llama_?factory|trl)_'
)
#: Values of fields that have no effect, whether or not the model has the feature.
DEFAULTS: dict[str, tuple[Any, ...]] = {
  'tensor_parallel_degree': (1,), 'partial_rotary_factor': (1,), 'rotary_pct': (1,),
  'embedding_multiplier': (1,), 'logits_scaling': (1,), 'residual_multiplier': (1,),
  'logit_scale': (1,),
  'embedding_fraction': (1,), 'router_scaling_factor': (1,),
  'layer_norm_elementwise_affine': (True,),
  'is_causal': (True,), 'causal': (True,), 'full_attn_mod': (1,), 'interpolate_factor': (1,),
  'ep_size': (1,),
  'residual_scale': (1,), 'num_nextn_predict_layers': (0,), 'num_experts': (0,),
  'num_local_experts': (0,),
}  # fmt: skip
#: Fields that `transformers` reads in every model and that are true by default.
_ON = ('is_causal',)
_DROPOUT = re.compile(r'(^|_)(drop(out|path)?|[a-z]*pdrop|droprate)(_|$)')


def is_neutral(name: str, value: Any) -> bool:
  """Return whether an unread field leaves the model's outputs unchanged.

  Args:
    name: name of the field.
    value: its value in the config.

  Returns:
    True for bookkeeping fields, for values that switch a feature off, and for known defaults.

  Example:
    >>> is_neutral('_num_labels', 3), is_neutral('rope_interleaved', False)
    (True, True)
    >>> is_neutral('surprise', 3)
    False
  """
  if name in SILENT or _PREFIXES.match(name):
    return True
  if value is None or (name not in _ON and (value is False or value in ('', [], {}))):
    return True
  if _DROPOUT.search(name) and value == 0:
    return True
  if name == 'layer_types' and isinstance(value, list):
    return {*value} == {'full_attention'}
  return value in DEFAULTS.get(name, ())
