"""Windows, time-outs and repeats of messages under way."""

from __future__ import annotations

from flute.defaults import (
    DELIVERY_BYTES_PER_S,
    DELIVERY_RETRY_MAX_S,
    DELIVERY_TIMEOUT_S,
    DELIVERY_WINDOW,
    MAX_ENVELOPE_BYTES,
)
from flute.transport.lanes import Lanes


def test_oldest_messages_go_first_and_the_window_is_kept() -> None:
    lanes = Lanes()
    for row in reversed(range(DELIVERY_WINDOW + 5)):
        lanes.add("hub-a", row, 10)
    assert lanes.take("hub-a", 0.0) == list(range(DELIVERY_WINDOW))
    assert lanes.take("hub-a", 0.0) == []
    lanes.delivered(3)
    assert lanes.take("hub-a", 0.0) == [DELIVERY_WINDOW]
    assert lanes.waiting("hub-a") == 4


def test_at_most_two_of_the_largest_messages_are_under_way_to_one_recipient() -> None:
    lanes = Lanes()
    for row in range(3):
        lanes.add("hub-a", row, MAX_ENVELOPE_BYTES)
    assert lanes.take("hub-a", 0.0) == [0, 1]
    lanes.delivered(0)
    assert lanes.take("hub-a", 0.0) == [2]
    assert lanes.bytes_under_way == 2 * MAX_ENVELOPE_BYTES


def test_a_recipient_that_stands_still_holds_up_no_other() -> None:
    lanes = Lanes()
    for row in range(DELIVERY_WINDOW + 1):
        lanes.add("hub-a", row, 10)
    lanes.take("hub-a", 0.0)
    lanes.add("hub-b", 1000, 10)
    assert lanes.take("hub-b", 0.0) == [1000]


def test_unconfirmed_message_is_offered_again_and_later_each_time() -> None:
    lanes = Lanes()
    lanes.add("hub-a", 1, 0)
    now, pauses = 0.0, []
    for _ in range(5):
        assert lanes.take("hub-a", now) == [1]
        due = lanes.next_due()
        assert due is not None
        lanes.overdue(due - 0.01)
        assert lanes.take("hub-a", due) == []
        lanes.overdue(due)
        pauses.append(due - now)
        now = due
    assert pauses == [min(DELIVERY_TIMEOUT_S * 2**i, DELIVERY_RETRY_MAX_S) for i in range(5)]


def test_a_slow_line_is_given_time_for_all_bytes_before_a_message() -> None:
    lanes = Lanes()
    for row in (1, 2):
        lanes.add("hub-a", row, 10 * DELIVERY_BYTES_PER_S)
    lanes.take("hub-a", 0.0)
    lanes.overdue(DELIVERY_TIMEOUT_S + 10.5)
    assert lanes.waiting("hub-a") == 1  # the first: ten seconds of line; the second has twenty
    lanes.overdue(DELIVERY_TIMEOUT_S + 20.5)
    assert lanes.waiting("hub-a") == 2


def test_after_a_new_connection_everything_under_way_goes_again_at_once() -> None:
    lanes = Lanes()
    lanes.add("hub-a", 1, 5)
    lanes.add("hub-b", 2, 5)
    lanes.take("hub-a", 0.0)
    lanes.take("hub-b", 0.0)
    lanes.again("hub-a")
    assert lanes.recipients() == ["hub-a"]
    lanes.again()
    assert sorted(lanes.recipients()) == ["hub-a", "hub-b"]
    assert lanes.bytes_under_way == 0


def test_late_receipt_ends_a_message_that_waits_again() -> None:
    lanes = Lanes()
    lanes.add("hub-a", 1, 5)
    lanes.take("hub-a", 0.0)
    lanes.again()
    lanes.delivered(1)
    lanes.delivered(1)  # and once more, from the repeat
    assert len(lanes) == 0
    assert lanes.recipients() == []
    assert lanes.next_due() is None
