"""The large group: what is long and close to what other cases of its test ask. `scripts/test.sh --all` asks it too.

What stands here was chosen by CPU time: the cases of a test that say least beside the others that every run asks.
"""

from collections.abc import Iterable
import os
import re

import pytest

#: Whether the large group is asked.
ALL = bool(os.environ.get('TFM_ALL'))

#: File -> test -> the ids of its cases that are in the group, as a regular expression.
CASES = {
  'tests/contracts/test_run.py': {
    'test_tiles_that_are_smaller_than_most_models_are_asked_with_give_the_same_numbers': 'encoder-decoder',
  },
  'tests/generate/test_compilations.py': {
    'test_nothing_is_compiled_again_while_lengths_stay_in_their_buckets': 'drawn|penalised|lookup|beams|small draft',
  },
  'tests/generate/test_decode.py': {
    'test_a_batch_of_different_lengths_says_what_full_passes_over_each_prompt_say': (
      'alibi_mqa|t5|sinusoidal|learned|encdec'
    ),
  },
  'tests/generate/test_generate_oracle.py': {
    'test_greedy_rows_of_different_lengths_are_theirs': 'bloom|gpt2|marian',
    'test_greedy_rows_end_where_theirs_do_and_obey_the_same_penalties': 'bloom|gpt2|marian',
    'test_forced_tokens_and_forbidden_ones_are_theirs': 'bloom|gpt2|marian',
    'test_the_best_beam_is_theirs': 'bloom|gpt2|marian',
    'test_beams_end_with_their_stop_texts_as_theirs_do': 'bloom|gpt2|marian',
  },
  'tests/generate/test_prompt_cache.py': {
    'test_a_prompt_from_a_file_is_gone_on_with_as_without': r'rope_gqa-Paged.*|window-(Int8|Dense).*',
    'test_a_prompt_in_chunks_is_gone_on_with_as_one_read_at_once': r'(1|16)-Int8.*|1-(Dense|Ring).*|16-Paged.*',
  },
  'tests/generate/test_speculate.py': {
    'test_greedy_rows_are_what_they_are_without_a_draft': 'prefix|t5_shared',
    'test_guesses_beyond_the_last_position_harm_nothing': 'paged',
    'test_heads_for_later_tokens_change_no_greedy_row': 'parallel-unroll|sequential-scan',
    'test_the_first_two_tokens_are_distributed_as_without_a_draft': 'other|lookup',
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
      '(True-rope_gqa|False-window)-.*'
    ),
  },
  'tests/parts/test_attend.py': {
    'test_kernels_agree_with_the_dense_one': (
      '(full|window|cap|sink|alibi|t5)-pallas|(cap|sink|alibi)-(blockwise|staircase)'
    ),
  },
  'tests/parts/test_mla.py': {
    'test_absorbed_equals_expanded_equals_no_cache': '(q_rank|biases|yarn|alibi|rope-far)-blockwise|(t5|biases)-dense',
  },
  'tests/parts/test_moe.py': {
    'test_nothing_is_dropped_and_gradients_are_those_of_all_experts_run': (
      'mlp-(sigmoid|grouped|expert_choice)|biased-(softmax|sigmoid|expert_choice)'
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
    'test_every_relative_position_is_served_under_one_mask_or_another': (
      'none|rope|shaw|t5|toeplitz|tupe|xl|toeplitz-512|rope-far'
    ),
    'test_over_a_mesh_every_device_has_what_its_heads_ask_and_are_told': '1',
  },
  'tests/parts/test_residuals.py': {
    'test_the_gradient_of_what_is_undone_is_the_plain_one_dropout_and_all': 'outside-unroll',
  },
  'tests/parts/test_values_by_distance.py': {
    'test_a_kernel_reads_what_a_vector_gathered_for_every_pair_gives': (
      '(full|sink|dropout)-(dense|blockwise)|(strided|two views and one more)-dense'
    ),
    'test_a_prompt_and_then_a_token_at_a_time_say_what_the_whole_row_says': (
      "(shared, and a layer's own|latents that share)-dense|latent-int8|grouped-int8"
    ),
  },
  'tests/train/test_experts.py': {
    'test_a_step_moves_each_bias_by_its_rate_against_the_load_of_the_whole_batch_and_by_nothing_else': '1',
    'test_every_mesh_gives_the_numbers_of_one_device_and_splits_the_experts': r'\((8, 1, 1|1, 2, 4)\)-.*',
  },
  'tests/train/test_finetune.py': {'test_merged_adapters_compute_the_same': 'adapter0'},
}


def mark(items: Iterable[pytest.Item]) -> None:
  """Leaves the group out, with a word, unless all is asked."""
  left_out = pytest.mark.skip(reason='the large group: bash scripts/test.sh --all asks it too')
  for item in items if not ALL else ():
    ids = CASES.get(item.nodeid.split('::')[0], {}).get(getattr(item, 'originalname', ''))
    if item.get_closest_marker('large') or (ids and re.fullmatch(ids, item.callspec.id)):
      item.add_marker(left_out)
