"""The large group: what is long and close to what other cases of its test ask. `scripts/test.sh --all` asks it too.

What stands here was chosen by CPU time: the cases of a test that say least beside the others that every run asks.
"""

from collections.abc import Iterable
import dataclasses
import os
import re

import pytest

#: Whether the large group is asked.
ALL = bool(os.environ.get('TFM_ALL'))

#: File -> test -> the ids of its cases that are in the group, as a regular expression.
CASES = {
  # The numbers of families are compared in tests/hub.
  'tests/contracts/test_models.py': dict.fromkeys(
    (
      'test_tokens_reach_exactly_where_the_masks_say',
      'test_padded_equals_packed_equals_alone',
      'test_a_prompt_and_then_a_token_at_a_time_equals_the_whole_row',
      'test_unrolled_equals_scanned',
      'test_every_kernel_and_remat_policy_gives_the_same_numbers',
      'test_every_parameter_of_every_layer_gets_a_finite_gradient_that_is_not_zero',
      'test_gradients_are_the_same_by_every_kernel_and_whatever_is_kept',
    ),
    'zoo=.*',
  ),
  'tests/contracts/test_run.py': {
    'test_tiles_that_are_smaller_than_most_models_are_asked_with_give_the_same_numbers': 'encoder-decoder',
  },
  'tests/generate/test_beam.py': {
    'test_a_prompt_is_searched_as_if_alone': 'window',
    'test_every_cache_follows_its_beams': 'window-.*',
  },
  'tests/generate/test_compilations.py': {
    'test_nothing_is_compiled_again_while_lengths_stay_in_their_buckets': 'drawn|penalised|lookup|beams|small draft',
  },
  'tests/generate/test_decode.py': {
    'test_a_batch_of_different_lengths_says_what_full_passes_over_each_prompt_say': (
      'alibi_mqa|t5|sinusoidal|learned|encdec|prefix|shared'
    ),
  },
  'tests/generate/test_generate_oracle.py': {
    'test_greedy_rows_of_different_lengths_are_theirs': 'bloom|gpt2|marian',
    'test_greedy_rows_end_where_theirs_do_and_obey_the_same_penalties': 'bloom|gpt2|marian',
    'test_forced_tokens_and_forbidden_ones_are_theirs': 'bloom|gpt2|marian',
    'test_the_best_beam_is_theirs': 'bloom|gpt2|marian|llama|bart',
    'test_beams_end_with_their_stop_texts_as_theirs_do': 'bloom|gpt2|marian|llama|bart',
  },
  'tests/generate/test_prepare.py': {'test_a_layer_at_a_time_says_what_the_stack_says': 'shared|rope_gqa'},
  'tests/generate/test_prompt_cache.py': {
    'test_a_ring_goes_on_from_a_file_as_far_as_it_can_be_cut_back': 'Int8.*',
    'test_beams_and_drafts_go_on_from_a_file_too': 'smaller|lookup',
    'test_a_prompt_from_a_file_is_gone_on_with_as_without': r'rope_gqa-(Paged|Dense).*|window-(Int8|Dense).*',
    'test_a_prompt_in_chunks_is_gone_on_with_as_one_read_at_once': r'(1|16)-(?!Ring|Dense).*|1-(Dense|Ring).*',
  },
  'tests/generate/test_speculate.py': {
    'test_greedy_rows_are_what_they_are_without_a_draft': 'prefix|t5_shared|encdec',
    'test_ends_penalties_and_streams_are_the_same_too': 'near',
    'test_heads_for_later_tokens_change_no_greedy_row': 'parallel-unroll|sequential-.*',
    'test_the_first_two_tokens_are_distributed_as_without_a_draft': 'other|lookup|heads',
  },
  'tests/hub/test_published.py': dict.fromkeys(
    (
      'test_outputs_hidden_states_and_where_whole_gradients_and_a_cache_are_the_same',
      'test_what_is_exported_is_what_was_imported',
    ),
    # Other heads on bodies that have cases of their own, beside those of three families.
    '(?!bert|gpt2|t5)[a-z0-9._-]+-(classifier|sequence|tokens|questions|choices|body|tied|encoder)',
  ),
  'tests/model/test_cache.py': {
    'test_rows_cut_back_to_lengths_of_their_own_go_on_as_if_they_had_never_gone_further': (
      '(True-rope_gqa|False-window)-.*|False-.*-(ring|paged|int8-ring).*'
    ),
  },
  'tests/model/test_mtp.py': {
    'test_a_few_steps_lower_the_loss_of_every_depth': 'parallel|latent',
    'test_a_rejected_draft_is_cut_back_as_the_models_own_cache_is': 'parallel|latent',
    'test_packed_documents_say_what_they_say_alone': 'latent',
    'test_the_base_model_is_the_same_to_the_bit': 'parallel|latent',
  },
  'tests/parts/test_attend.py': {
    'test_masks_in_an_order_of_their_own_say_what_the_dense_kernel_says': 'both',
    'test_queries_and_keys_may_differ_in_number_and_values_in_width': 'pallas-(40-7|1-40)',
    'test_kernels_agree_with_the_dense_one': '(?!all|most)[a-z0-9]+-pallas|(cap|sink|alibi)-(blockwise|staircase)',
  },
  'tests/parts/test_mla.py': {
    'test_absorbed_equals_expanded_equals_no_cache': '(?!plain|cap-sink-window|rope-far-dense|xl-blockwise).*',
  },
  'tests/parts/test_moe.py': {
    'test_nothing_is_dropped_and_gradients_are_those_of_all_experts_run': (
      'mlp-.*|biased-(softmax|sigmoid|expert_choice)|glu-sigmoid'
    ),
  },
  'tests/parts/test_pallas.py': {
    'test_any_mask_is_run_inside_the_kernel_by_its_views_with_dropout_and_sink': (
      'bigbird|dilated|fixed|lambda|permutation|prefix'
    ),
    'test_biases_of_many_makes_are_run_inside_the_kernel_and_get_their_gradients': (
      'of_all_heads|squared_and_sloped|of_keys_alone'
    ),
    'test_over_a_mesh_every_device_has_its_rows_and_heads': '4-2|1-2',
  },
  'tests/parts/test_pallas_relatives.py': {
    'test_all_of_them_together_with_cap_sink_and_dropout_at_places_far_apart_and_by_views': 'mask1',
    'test_every_relative_position_is_served_under_one_mask_or_another': '(?!alibi|toeplitz-1000|shaw-3).*',
    'test_over_a_mesh_every_device_has_what_its_heads_ask_and_are_told': '1',
  },
  'tests/parts/test_residuals.py': {
    'test_depth_weighted_averages_start_as_the_plain_stack_bit_for_bit': 'residual[12]',
  },
  'tests/parts/test_values_by_distance.py': {
    'test_a_kernel_reads_what_a_vector_gathered_for_every_pair_gives': (
      '(full|sink|dropout)-(dense|blockwise)|(strided|two views and one more)-dense'
    ),
    'test_a_prompt_and_then_a_token_at_a_time_say_what_the_whole_row_says': (
      "(shared, and a layer's own|latents that share|window)-dense|latent-int8|grouped-(int8|ring|paged)"
    ),
  },
  'tests/parts/test_vendors.py': {'test_a_vendor_is_told_what_the_dense_kernel_says': 'splash (window|full).*'},
  'tests/test_colabs.py': {'test_a_notebook_runs': '03_swap_variants|04_finetune_and_export'},
  'tests/train/test_experts.py': {
    'test_a_step_moves_each_bias_by_its_rate_against_the_load_of_the_whole_batch_and_by_nothing_else': '1',
    'test_every_mesh_gives_the_numbers_of_one_device_and_splits_the_experts': r'(?!\(4, 1, 2\)|\(1, 1, 2, 1, 4\)).*',
  },
  'tests/train/test_shard.py': {
    'test_every_mesh_gives_the_losses_of_one_device_and_splits_the_state': r'\(8, 1, 1\)-.*',
  },
  'tests/train/test_finetune.py': {'test_merged_adapters_compute_the_same': 'adapter1'},
}


def sizes() -> list:
  """The names of the zoo; of those made of the same parts with the same choices all but the first are in the group."""
  from tfm import zoo  # what imports jax is not for the process that only hands tests out

  seen: set = set()
  found = []
  for name in zoo.names():
    made = _made(zoo.get(name))
    found.append(pytest.param(name, marks=pytest.mark.large) if made in seen else name)
    seen.add(made)
  return found


def _made(node: object) -> object:
  """A spec without its numbers."""
  if isinstance(node, tuple):
    return tuple(_made(n) for n in node)
  if dataclasses.is_dataclass(node):
    return type(node), *(_made(getattr(node, field.name)) for field in dataclasses.fields(node))
  return None if isinstance(node, int | float) and not isinstance(node, bool) else node


def mark(items: Iterable[pytest.Item]) -> None:
  """Leaves the group out, with a word, unless all is asked."""
  left_out = pytest.mark.skip(reason='the large group: bash scripts/test.sh --all asks it too')
  for item in items if not ALL else ():
    ids = CASES.get(item.nodeid.split('::')[0], {}).get(getattr(item, 'originalname', ''))
    if item.get_closest_marker('large') or (ids and re.fullmatch(ids, item.callspec.id)):
      item.add_marker(left_out)
