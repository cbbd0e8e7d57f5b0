"""Every attack on plan `secagg` that was thought of: what withstands it, and what shows that it would win otherwise.

Rows are in the order of the design's tables. `defence` names tests in which the attack gets nothing, `control` tests
in which it wins because its one defence was taken away, `vectors` the frozen messages that are refused. A row
whose test is renamed or removed fails here.

Vectors of `secagg/attacks` are written by: python -m tests.adversary.test_secagg_attack_table
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from tests.adversary.secagg_rounds import QUESTION, Federation, answers, any_of, group, words

from flute import errors
from flute.aggregation import collector, member
from flute.aggregation.codec import exact_bounds
from flute.aggregation.context import context, masked_to_sign
from flute.aggregation.state import decode_state
from flute.messages.protocol import Echo, Echoes, Masked, Shares, Start, Survivors, Ticket
from flute.primitives.keys import AgreementKey

pytestmark = pytest.mark.requirement("F-SRS-10")

TESTS = Path(__file__).parents[1]
VECTORS = TESTS / "vectors" / "secagg"
ATTACKS = VECTORS / "attacks"

Names = tuple[str, ...]
Json = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """table: of the design's. Tests are "file::function", the file without `adversary/test_secagg_` where it starts
    so."""

    table: str
    attack: str
    defence: Names
    control: Names
    vectors: Names = ()


ROWS = (
    # --- the protocol's attack table ---
    Row(
        "protocol", "another question to one hub",
        ("cheats::test_another_question_to_one_hub_gives_noise_even_if_opened",
         "cheats::test_question_other_than_the_one_asked_is_refused"),
        ("cheats::test_control_masks_without_context_open_a_mix_of_two_questions",),
        ("bad/another_question",),
    ),
    Row(
        "protocol", "inconsistent alive sets",
        ("dropouts::test_no_two_survivor_sets_of_one_round_open", "cheats::test_inconsistent_sets_are_never_opened"),
        ("dropouts::test_control_under_a_low_threshold_two_sets_open_and_their_difference_is_one_hub",),
        ("attacks/tags_of_two_sets",),
    ),
    Row(
        "protocol", "a live hub is called dropped",
        ("dropouts::test_no_order_and_no_choice_of_lies_opens_both_halves_of_a_live_hub",
         "dropouts::test_both_halves_and_only_both_lay_a_vector_bare"),
        ("dropouts::test_control_under_a_low_threshold_a_live_hub_is_laid_bare",),
        ("bad/set_without_me",),
    ),
    Row(
        "protocol", "two sets, a second opening, a replayed round",
        ("once_only::test_a_second_set_a_second_opening_and_a_replay_are_refused",
         "once_only::test_a_replayed_round_is_refused_after_the_next_one",
         "once_only::test_no_order_of_messages_masks_or_opens_a_ticket_twice"),
        ("once_only::test_control_restored_state_masks_the_old_ticket_again",
         "audit::test_control_a_hub_that_forgets_what_was_named_masks_twice_under_one_ticket"),
        ("attacks/second_set_after_the_first", "attacks/set_after_opening"),
    ),
    Row(
        "protocol", "an old ticket, a swapped key",
        ("bad_tickets::test_old_ticket_of_an_offline_hub_is_refused", "bad_tickets::test_swapped_key_is_refused"),
        ("bad_tickets::test_control_a_key_that_is_swapped_unchecked_gives_the_pair_mask_away",),
        ("bad/ticket_forged", "bad/ticket_named_before"),
    ),
    Row(
        "protocol", "too few hubs or survivors",
        ("dropouts::test_fewer_survivors_than_agreed_are_refused_by_every_hub",
         "cheats::test_too_few_hubs_are_refused_at_message_0"),
        ("dropouts::test_control_hubs_that_do_not_count_open_a_sum_with_too_little_noise",
         "cheats::test_control_a_sum_of_two_is_one_subtraction_from_the_other"),
        ("bad/two_hubs_alone", "attacks/set_of_four_where_five_were_agreed"),
    ),
    Row(
        "protocol", "one hub lost before its vector, one after it",
        ("dropouts::test_one_hub_lost_before_its_vector_and_one_after_it_leave_a_sum",),
        ("dropouts::test_control_where_every_share_is_needed_one_late_hub_stops_the_sum",),
    ),
    Row(
        "protocol", "wrong shares",
        ("bad_hubs::test_any_t_good_shares_open_and_the_hub_with_bad_ones_is_named",
         "dropouts::test_shares_of_the_wrong_half_do_not_count_and_name_their_holder"),
        ("dropouts::test_control_unchecked_shares_of_the_wrong_half_blame_an_honest_dealer",
         "bad_hubs::test_control_unchecked_shares_put_the_blame_on_an_honest_dealer"),
        ("attacks/shares_of_the_other_half",),
    ),
    Row(
        "protocol", "a crash, then another encoding under the same mask",
        ("once_only::test_a_crash_between_masking_and_sending_leads_to_the_same_bytes_or_to_none",
         "noise_shares::test_a_hub_masks_once_so_nothing_can_be_averaged"),
        ("once_only::test_control_the_same_mask_twice_gives_the_difference_away",),
    ),
    Row(
        "protocol", "the coordinator changes stored vectors",
        ("audit::test_stored_messages_that_were_changed_to_fit_another_total_are_found",),
        ("audit::test_control_an_auditor_that_does_not_check_signatures_confirms_the_lie",),
        ("attacks/vector_changed_with_its_hash", "attacks/vector_of_another_round"),
    ),
    # --- breaks of the first design, and the rules against them ---
    Row(
        "breaks", "an exact sum with a hub and one without it",
        ("dropouts::test_without_noise_no_hub_signs_a_set_that_lacks_one",
         "cheats::test_exact_round_over_another_set_is_refused_also_after_a_restart"),
        ("dropouts::test_control_an_exact_sum_with_and_without_a_hub_gives_that_hub_away",),
        ("attacks/exact_set_without_a_hub",),
    ),
    Row(
        "breaks", "a stored noisy answer masked again into a smaller set",
        ("dropouts::test_the_same_question_to_a_smaller_set_is_another_release_with_its_own_charge",),
        ("dropouts::test_control_a_stored_noisy_answer_in_two_sets_shows_one_hub_under_its_own_noise",),
    ),
    Row(
        "breaks", "shares of noise that forget dropouts, or the noise that a hub knows itself",
        ("noise_shares::test_a_coalition_that_subtracts_its_own_noise_faces_what_is_charged",
         "noise_shares::test_the_shares_counted_on_are_the_fewest_honest_ones_in_any_set_that_may_open"),
        ("noise_shares::test_control_a_number_of_shares_that_forgets_dropouts_or_colluders_leaves_too_little",
         "noise_shares::test_control_counting_by_the_threshold_of_the_whole_group_counts_too_many"),
    ),
    Row(
        "breaks", "colluding neighbours and neighbours called dropped cut a hub off",
        ("graph::test_six_colluding_and_six_called_dropped_neighbours_leave_a_hub_hidden",
         "graph::test_masks_hold_together_whoever_colludes_or_is_called_dropped",
         "graph::test_neighbours_agree_both_ways_and_no_ring_of_twelve_cuts_a_hub_off",
         "graph::test_without_an_echo_no_hub_is_cut_off_by_those_that_a_liar_can_call_dropped"),
        ("graph::test_control_with_twelve_neighbours_the_same_twelve_lay_it_bare",),
    ),
    Row(
        "breaks", "a hub restored from a backup opens both halves",
        ("once_only::test_restored_machine_enrols_again_and_its_old_tickets_shares_and_rounds_are_void",
         "dropouts::test_a_second_vector_under_the_opened_key_is_refused"),
        ("dropouts::test_control_the_opened_ticket_masks_again_where_states_are_restored",
         "once_only::test_control_restored_state_masks_the_old_ticket_again"),
    ),
    Row(
        "breaks", "a key that is stolen later decrypts all shares dealt before",
        ("audit::test_a_key_that_is_stolen_later_opens_no_box_from_before",
         "sees_only_totals::test_a_key_stolen_later_opens_nothing_dealt_before"),
        ("audit::test_control_without_the_ratchet_it_opens_every_box",),
    ),
    Row(
        "breaks", "a ticket dealt under one threshold or roster, used under another",
        ("bad_tickets::test_ticket_dealt_under_other_terms_is_refused",
         "audit::test_hubs_that_were_shown_different_rosters_never_start_a_round_together"),
        ("dropouts::test_control_under_a_low_threshold_a_live_hub_is_laid_bare",
         "collusion::test_control_t_colluding_hubs_lay_everyone_bare"),
        ("bad/ticket_under_another_threshold", "bad/terms_with_lower_threshold"),
    ),
    Row(
        "breaks", "one number that is none switches the clip off",
        ("audit::test_a_number_that_is_none_neither_enters_a_sum_nor_switches_a_clip_off",),
        ("audit::test_control_a_clip_as_often_written_lets_everything_beside_it_through",),
    ),
    Row(
        "breaks", "garbage passes the test of the total, for the codec has no room",
        ("audit::test_garbage_under_a_good_signature_is_no_total",
         "audit::test_a_hub_that_lies_within_its_bound_is_believed_and_beyond_it_is_not",
         "bad_hubs::test_overflowing_answer_is_noticed_in_the_total"),
        ("audit::test_control_without_sentinels_garbage_passes_for_a_total",),
        ("attacks/vector_of_garbage",),
    ),
    Row(
        "breaks", "a lying holder has an honest dealer blamed",
        ("dropouts::test_shares_of_the_wrong_half_do_not_count_and_name_their_holder",
         "bad_hubs::test_too_few_good_shares_open_nothing_and_name_the_holder"),
        ("dropouts::test_control_unchecked_shares_of_the_wrong_half_blame_an_honest_dealer",),
    ),
    Row(
        "breaks", "a wrong tag stops a round, or a retry without it opens another",
        ("cheats::test_one_hub_cannot_veto_with_a_wrong_tag_and_is_reported",
         "cheats::test_too_few_true_tags_open_nothing"),
        ("cheats::test_control_unverified_tags_open_a_set_that_nobody_else_signed",),
        ("bad/tags_forged", "bad/tags_duplicated", "bad/tags_without_my_own"),
    ),
    # --- the rules beside the tables ---
    Row(
        "rules", "a ticket is named, nobody answers, and it is named again",
        ("bad_tickets::test_ticket_named_but_never_answered_is_burnt",
         "audit::test_a_ticket_that_is_named_twice_serves_once",
         "dropouts::test_a_hub_that_was_called_dropped_deals_anew_and_answers_the_next_round"),
        ("audit::test_control_a_hub_that_forgets_what_was_named_masks_twice_under_one_ticket",),
        ("bad/ticket_named_before",),
    ),
    Row(
        "rules", "one public part is dealt twice",
        ("audit::test_dealing_again_gives_the_ticket_that_was_dealt_byte_for_byte",
         "once_only::test_dealing_again_gives_the_same_ticket_bytes_until_it_is_burnt",
         "bad_tickets::test_two_tickets_of_one_serial_shown_to_two_hubs_open_nothing"),
        ("audit::test_control_two_boxes_under_one_key_give_the_difference_of_two_shares",),
    ),
    Row(
        "rules", "a message that does not pass burns something nevertheless",
        ("audit::test_member_steps_that_are_refused_leave_the_state_alone",
         "audit::test_a_bad_box_names_its_dealer_before_anything_has_left"),
        ("audit::test_control_a_box_that_is_not_checked_gets_its_holder_blamed",),
        ("bad/own_ticket_changed", "bad/ticket_with_high_bit", "bad/bad_share_outside_the_field"),
    ),
    Row(
        "rules", "a threshold that as many hubs reach as may collude",
        ("dropouts::test_the_threshold_that_would_allow_it_is_refused_with_a_sentence",
         "collusion::test_t_minus_one_shares_fit_every_other_secret_and_t_do_not"),
        ("collusion::test_control_t_colluding_hubs_lay_everyone_bare",),
    ),
    Row(
        "rules", "a sum that 64 bits cannot hold",
        ("audit::test_a_number_that_a_sum_of_64_bits_cannot_hold_is_refused_at_the_hub",),
        ("audit::test_control_sums_beyond_64_bits_come_out_as_other_numbers",),
    ),
    # --- tried against the design, which held ---
    Row(
        "held", "a vector arrives after its key was opened",
        ("dropouts::test_a_vector_that_comes_after_its_key_was_opened_stays_masked_by_its_seed",
         "dropouts::test_a_late_vector_is_in_no_sum_and_its_hub_opens_nothing",
         "dropouts::test_a_late_vector_that_is_summed_after_all_spoils_the_total"),
        ("dropouts::test_control_with_its_seed_too_the_late_vector_is_bare",),
    ),
    Row(
        "held", "hubs in one round with different contexts",
        ("cheats::test_inconsistent_sets_are_never_opened",
         "cheats::test_another_question_to_one_hub_gives_noise_even_if_opened"),
        ("cheats::test_control_masks_without_context_open_a_mix_of_two_questions",),
        ("bad/set_of_another_round",),
    ),
    Row(
        "held", "carries between lanes tell of the number below",
        ("collusion::test_carries_between_lanes_show_nothing_under_a_mask",),
        ("collusion::test_carries_between_lanes_show_nothing_under_a_mask",),
    ),
    Row(
        "held", "small-order points as keys",
        ("audit::test_a_small_order_point_gives_no_key",
         "bad_tickets::test_public_key_that_makes_the_pair_mask_known_is_refused"),
        ("audit::test_control_a_mask_made_with_a_small_order_point_is_known_to_everyone",),
        ("attacks/start_with_a_small_order_point",),
    ),
    # --- further tests that the design asks for ---
    Row(
        "further", "r encodings under one mask after crashes",
        ("noise_shares::test_a_hub_masks_once_so_nothing_can_be_averaged",),
        ("noise_shares::test_control_r_encodings_under_one_mask_leave_a_share_of_the_noise_in_r",
         "once_only::test_control_masking_r_times_after_crashes_averages_the_noise_away"),
    ),
    Row(
        "further", "the old ticket of a hub that was away",
        ("bad_tickets::test_old_ticket_of_an_offline_hub_is_refused",
         "dropouts::test_a_hub_that_was_called_dropped_deals_anew_and_answers_the_next_round"),
        ("audit::test_control_a_hub_that_forgets_what_was_named_masks_twice_under_one_ticket",),
    ),
    Row(
        "further", "a hub's own ticket is absent or changed",
        ("bad_tickets::test_own_ticket_absent_or_changed_is_refused",),
        ("bad_tickets::test_control_a_key_that_is_swapped_unchecked_gives_the_pair_mask_away",),
        ("bad/own_ticket_absent", "bad/own_ticket_changed"),
    ),
    Row(
        "further", "the mode is switched by a message",
        ("cheats::test_mode_cannot_be_switched_by_a_message",),
        ("cheats::test_control_passive_group_opens_on_the_coordinators_word_alone",),
        ("bad/terms_made_passive", "bad/opening_without_echo"),
    ),
    Row(
        "further", "a bad ciphertext to one hub",
        ("audit::test_a_bad_box_names_its_dealer_before_anything_has_left",
         "bad_tickets::test_bad_ciphertext_to_one_hub_names_its_dealer_and_burns_nothing"),
        ("audit::test_control_a_box_that_is_not_checked_gets_its_holder_blamed",),
        ("bad/box_flipped",),
    ),
    Row(
        "further", "rounds that are aborted again and again",
        ("once_only::test_abort_loop_costs_a_fresh_ticket_and_an_independent_mask_each_time",),
        ("once_only::test_control_the_same_mask_twice_gives_the_difference_away",),
    ),
    Row(
        "further", "how long noise is redrawn tells of the records",
        ("noise_shares::test_noise_is_drawn_once_whatever_the_records_are",),
        ("noise_shares::test_control_rounding_again_until_a_row_is_short_takes_longer_for_some_records",),
    ),
    # --- what the issue adds ---
    Row(
        "added", "a crash between journal and send",
        ("once_only::test_a_crash_between_masking_and_sending_leads_to_the_same_bytes_or_to_none",
         "federation/test_kill.py::test_a_death_between_charge_and_answer_is_not_answered_later_and_says_so"),
        ("once_only::test_control_the_same_mask_twice_gives_the_difference_away",
         "federation/test_kill.py::test_the_sweep_would_see_a_hub_that_answers_late"),
    ),
    Row(
        "added", "the same ticket twice",
        ("audit::test_a_ticket_that_is_named_twice_serves_once",),
        ("audit::test_control_a_hub_that_forgets_what_was_named_masks_twice_under_one_ticket",),
        ("attacks/start_that_names_a_ticket_twice", "bad/ticket_named_before"),
    ),
    Row(
        "added", "an equivocating roster",
        ("audit::test_hubs_that_were_shown_different_rosters_never_start_a_round_together",
         "audit::test_a_coordinator_cannot_play_other_hubs_to_a_hub_that_holds_the_roster"),
        ("audit::test_control_under_a_roster_of_the_coordinators_making_the_others_are_one_and_it_subtracts",),
        ("attacks/start_under_another_roster",),
    ),
    Row(
        "added", "a hub that sends garbage",
        ("audit::test_garbage_under_a_good_signature_is_no_total",),
        ("audit::test_control_without_sentinels_garbage_passes_for_a_total",),
        ("attacks/vector_of_garbage",),
    ),
    Row(
        "added", "a hub that sends a NaN",
        ("audit::test_a_number_that_is_none_neither_enters_a_sum_nor_switches_a_clip_off",),
        ("audit::test_control_a_clip_as_often_written_lets_everything_beside_it_through",),
    ),
    Row(
        "added", "a hub that sends a vector of another length",
        ("audit::test_a_vector_of_another_length_names_its_hub_and_the_round_goes_on_without_it",),
        ("audit::test_control_an_unchecked_length_is_noticed_when_the_round_is_lost",),
        ("attacks/vector_of_nine_words",),
    ),
    Row(
        "added", "a coordinator that changes the opened total",
        ("audit::test_a_published_total_other_than_the_opened_one_is_found",
         "audit::test_hubs_that_were_told_different_totals_find_it_by_comparing_digests",
         "audit::test_an_honest_transcript_gives_the_digest_that_every_hub_was_told"),
        ("audit::test_control_an_auditor_that_does_not_check_signatures_confirms_the_lie",),
    ),
    Row(
        "added", "1 to t - 1 hubs with the coordinator",
        ("collusion::test_the_joint_view_is_made_from_the_allowed_total_alone",
         "collusion::test_the_simulator_is_told_nothing_else",
         "collusion::test_t_minus_one_shares_fit_every_other_secret_and_t_do_not",
         "collusion::test_what_is_left_of_honest_vectors_is_uniform_but_for_their_sum",
         "collusion::test_two_inputs_with_one_sum_leave_words_of_one_law",
         "collusion::test_a_trained_distinguisher_learns_nothing_and_with_one_hubs_masks_left_out_everything",
         "collusion::test_a_distinguisher_that_reads_shares_and_vectors_of_whole_rounds_learns_nothing"),
        ("collusion::test_control_no_other_total_makes_that_view",
         "collusion::test_control_where_masks_between_honest_hubs_are_left_out_no_simulator_can",
         "collusion::test_control_a_hub_without_masks_towards_honest_hubs_is_seen",
         "collusion::test_control_t_colluding_hubs_lay_everyone_bare",
         "collusion::test_the_distinguisher_sees_one_bit_left_bare_in_every_tenth_world"),
    ),
)  # fmt: skip

TABLES = {"protocol": 10, "breaks": 11, "rules": 5, "held": 4, "further": 7, "added": 8}


def file_of(test: str) -> tuple[Path, str]:
    file, name = test.split("::")
    return TESTS / (file if file.endswith(".py") else f"adversary/test_secagg_{file}.py"), name


@cache
def functions_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_every_row_of_the_tables_is_here() -> None:
    assert {table: sum(row.table == table for row in ROWS) for table in TABLES} == TABLES
    assert len({(row.table, row.attack) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.table}: {row.attack}")
def test_a_row_names_tests_and_vectors_that_exist(row: Row) -> None:
    assert row.defence
    assert row.control
    for test in (*row.defence, *row.control):
        path, name = file_of(test)
        assert name in functions_in(path), f"{test} does not exist"
    for vector in row.vectors:
        assert (VECTORS / f"{vector}.json").is_file(), f"there is no vector {vector}"


def test_control_a_row_with_a_test_that_does_not_exist_is_seen() -> None:
    with pytest.raises(AssertionError, match="does not exist"):
        test_a_row_names_tests_and_vectors_that_exist(Row("added", "x", ("audit::test_x",), ("audit::test_y",)))


# --- named bad vectors --------------------------------------------------------------------------------


def packed(message: msgspec.Struct) -> str:
    return msgspec.msgpack.encode(message).hex()


def at_hub(step: str, state: bytes, message: msgspec.Struct, raises: str, says: str) -> Json:
    return {"step": step, "state": state.hex(), "message": packed(message), "raises": raises, "says": says}


def made_starts() -> dict[str, Json]:
    federation = Federation(group(5, 1, survivors_min=4), seed="attacks")
    start, hub = federation.starts(4)["hub-a"], federation.hubs["hub-a"]
    other = replace(start, terms=replace(start.terms, roster=bytes(32)))
    doubled = replace(start, pubs=(start.pubs[0], start.pubs[1], *start.pubs[1:]))
    with mock.patch.object(AgreementKey, "public", property(lambda self: bytes(32))):
        federation.tickets["hub-b"] = federation.hubs["hub-b"].deal(after=1)
    small = federation.starts(4)["hub-a"]
    cases = {
        "start_under_another_roster": (other, "Stale", "other terms"),
        "start_that_names_a_ticket_twice": (doubled, "Equivocation", "each once"),
        "start_with_a_small_order_point": (small, "Malformed", "hub-b holds a public key that gives no shared"),
    }
    return {name: at_hub("begin", hub.disk, *case) for name, case in cases.items()}


def made_sets() -> dict[str, Json]:
    federation = Federation(group(6, 1, survivors_min=5), seed="attacks")
    starts = federation.starts(4)
    federation.masked(starts, answers(federation.terms, size=4))
    hub, hubs, ctx = federation.hubs["hub-a"], federation.terms.hubs, context(any_of(starts))
    told, other = Survivors(ctx, hubs), Survivors(ctx, hubs[:5])
    few = at_hub("echo", hub.disk, Survivors(ctx, hubs[:4]), "TooFewHubs", "no fewer than 5")
    tags = [federation.hubs[h].echo(told if k < 3 else other) for k, h in enumerate(hubs[:5])]
    echoed, mixed = hub.disk, Echoes(ctx, tuple(tags))
    again = federation.hubs["hub-f"].echo(told)
    hub.unmask(Echoes(ctx, (*tags[:3], again)))
    exact = Federation(group(5, 1, exact=True, survivors_min=5), seed="attacks")
    begun = exact.starts(4)
    exact.masked(begun, answers(exact.terms, size=4))
    lacking = Survivors(context(any_of(begun)), exact.terms.hubs[:4])
    return {
        "set_of_four_where_five_were_agreed": few,
        "second_set_after_the_first": at_hub("echo", echoed, other, "OutOfOrder", "cannot sign"),
        "tags_of_two_sets": at_hub("unmask", echoed, mixed, "TooFewHubs", "Only 3 hubs"),
        "set_after_opening": at_hub("echo", hub.disk, other, "OutOfOrder", "cannot sign"),
        "exact_set_without_a_hub": at_hub(
            "echo", exact.hubs["hub-a"].disk, lacking, "TooFewHubs", "hub-e is missing"
        ),
    }


def signed(federation: Federation, message: Masked, vector: bytes) -> Masked:
    made = replace(message, vector=vector, length=len(vector), sha256=hashlib.sha256(vector).digest())
    return replace(made, signature=federation.hubs[message.hub].key.sign(masked_to_sign(made)))


def made_vectors() -> dict[str, Json]:
    federation = Federation(group(5, 1, survivors_min=4), seed="attacks")
    starts = federation.starts(4)
    masked = federation.masked(starts, answers(federation.terms, size=4))
    start, told, tickets = any_of(starts), federation.told(starts, masked), dict(federation.named)
    held = {n: federation.hubs[n].state.round.held for n in told.hubs}
    shares = federation.shares(starts, told)
    next_round = federation.masked(federation.starts(4), answers(federation.terms, size=4))["hub-b"]
    b = masked["hub-b"]
    moved = words(b)
    moved[0] += np.uint64(1)
    with_hash = replace(b, vector=moved.tobytes(), sha256=hashlib.sha256(moved.tobytes()).digest())
    garbage = signed(federation, b, (np.arange(1, 9, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)).tobytes())
    other_half = {
        n: replace(s, shares=tuple(held[n][d].point for d in told.hubs)) if n in ("hub-b", "hub-c") else s
        for n, s in shares.items()
    }

    def arriving(message: Masked, raises: str, says: str) -> Json:
        return {"step": "check_masked", "start": packed(start), "message": packed(message), "raises": raises,
                "says": says}  # fmt: skip

    def collected(vectors: dict[str, Masked], given: dict[str, Shares], raises: str, says: str) -> Json:
        return {
            "step": "total", "start": packed(start), "survivors": packed(told),
            "masked": {n: packed(m) for n, m in vectors.items()}, "shares": {n: packed(s) for n, s in given.items()},
            "tickets": {n: packed(t) for n, t in tickets.items()}, "raises": raises, "says": says,
        }  # fmt: skip

    return {
        "vector_changed_with_its_hash": arriving(with_hash, "BadSignature", "hub-b is not signed"),
        "vector_of_another_round": arriving(next_round, "Equivocation", "another round"),
        "vector_of_nine_words": arriving(signed(federation, b, bytes(72)), "Equivocation", "another length"),
        "vector_of_garbage": collected(masked | {"hub-b": garbage}, shares, "BadTotal", "check numbers"),
        "shares_of_the_other_half": collected(masked, other_half, "BadShare", "hub-b, hub-c sent shares"),
    }


def build() -> dict[str, Json]:
    origin = {"origin": "a good round (seed 'attacks') with one thing broken, as the name says"}
    makers: tuple[Callable[[], dict[str, Json]], ...] = (made_starts, made_sets, made_vectors)
    return {name: origin | case for make in makers for name, case in make().items()}


def as_text(content: Json) -> str:
    return json.dumps(content, indent=1) + "\n"


def read(kind: type, text: str) -> Any:
    return msgspec.msgpack.decode(bytes.fromhex(text), type=kind)


def read_all(kind: type, texts: dict[str, str]) -> dict[str, Any]:
    return {name: read(kind, text) for name, text in texts.items()}


def run_step(case: Json) -> Masked | Echo | Shares | collector.Opened | None:
    federation = Federation(group(6, 1), seed="attacks")
    key, keys = federation.hubs["hub-a"].key, federation.keys
    match case["step"]:
        case "begin":
            state = decode_state(bytes.fromhex(case["state"]))
            return member.begin(state, read(Start, case["message"]), question=QUESTION, keys=keys)[1]
        case "echo":
            return member.echo(decode_state(bytes.fromhex(case["state"])), read(Survivors, case["message"]), key=key)[
                1
            ]
        case "unmask":
            state = decode_state(bytes.fromhex(case["state"]))
            return member.unmask(state, read(Echoes, case["message"]), keys=keys, key=key, rand=None)[1]
        case "check_masked":
            start = read(Start, case["start"])
            return collector.check_masked(start, context(start), read(Masked, case["message"]), keys)
        case _:
            assert case["step"] == "total"
            return collector.total(
                read(Start, case["start"]), read(Survivors, case["survivors"]), read_all(Masked, case["masked"]),
                read_all(Ticket, case["tickets"]), read_all(Shares, case["shares"]), bounds=exact_bounds(5),
            )  # fmt: skip


@cache
def built() -> dict[str, Json]:
    return build()


FILES = sorted(path.stem for path in ATTACKS.glob("*.json"))


@pytest.mark.parametrize("name", FILES)
def test_named_vectors_are_refused_as_they_say(name: str) -> None:
    case = json.loads((ATTACKS / f"{name}.json").read_text())
    with pytest.raises(getattr(errors, case["raises"])) as caught:
        run_step(case)
    assert type(caught.value).__name__ == case["raises"]
    assert case["says"] in caught.value.text


def test_every_attack_vector_belongs_to_a_row_and_is_what_its_script_makes() -> None:
    named = {
        vector.removeprefix("attacks/") for row in ROWS for vector in row.vectors if vector.startswith("attacks/")
    }
    assert set(FILES) == named == set(built())
    for name, content in built().items():
        assert (ATTACKS / f"{name}.json").read_text() == as_text(content), name


if __name__ == "__main__":
    ATTACKS.mkdir(parents=True, exist_ok=True)
    for name, content in build().items():
        (ATTACKS / f"{name}.json").write_text(as_text(content))
