"""Talks: every hub hears what the others said in the same step; nobody in between changes, mixes or reads it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from flute.coordinator.plans.relay import TalkRelay
from flute.defaults.talk import MAX_BOX_BYTES
from flute.errors import BadSignature, Equivocation, FluteError, Malformed, MisuseError, OutOfOrder
from flute.messages.talk import Heard, Hello, Said
from flute.study.plans.talk import Ended, Program, Talk, session_digest
from support.parties import Party

HUBS = ("east", "north", "west")
KEYS = {hub: Party(hub).signing.public for hub in HUBS}
SESSION = session_digest(bytes(32), bytes(32), HUBS, b"q" * 32)
CANARY = b"a record that must not be seen"


def program_of(hub: str, steps: int = 3) -> Callable[[], Program[list[dict[int, bytes]]]]:
    places = tuple(p for p in (1, 2, 3) if HUBS[p - 1] != hub)

    def program() -> Program[list[dict[int, bytes]]]:
        heard = []
        for step in range(steps):
            incoming = yield {place: CANARY + bytes([step, place]) for place in places}
            heard.append(dict(incoming))
        return heard

    return program


def talk(hub: str, session: bytes = SESSION, steps: int = 3) -> Talk[list[dict[int, bytes]]]:
    return Talk(
        hub,
        HUBS,
        session,
        KEYS,
        Party(hub).signing,
        bytes([len(hub)]) * 31 + hub[:1].encode(),
        program_of(hub, steps),
    )


def carried(
    talks: dict[str, Talk[list[dict[int, bytes]]]], change: Callable[[str, Heard], Heard] = lambda _, heard: heard
) -> dict[str, Ended[list[dict[int, bytes]]] | FluteError]:
    """Through the coordinator's relay, which may `change` what it hands over."""
    queue: list[tuple[str, Heard]] = []

    def post(hub: str, heard: Heard) -> tuple[bytes, bytes]:
        queue.append((hub, heard))
        return b"", b""

    relay, ended = TalkRelay(1, SESSION, HUBS, post), {}
    for hub, one in talks.items():
        relay.take(hub, one.begin())
    while queue:
        hub, heard = queue.pop(0)
        try:
            said = talks[hub].hear(change(hub, heard))
        except FluteError as error:
            ended[hub] = error
            continue
        if isinstance(said, Said):
            relay.take(hub, said)
        else:
            ended[hub] = said
    return ended


def test_every_hub_hears_what_the_others_said_to_it_step_by_step() -> None:
    ended = carried({hub: talk(hub) for hub in HUBS})
    for place, hub in enumerate(HUBS, 1):
        result = ended[hub]
        assert isinstance(result, Ended)
        assert result.steps == 4
        assert result.result == [
            {p: CANARY + bytes([step, place]) for p in (1, 2, 3) if p != place} for step in range(3)
        ]


def test_the_coordinator_reads_nothing_and_repeats_are_byte_for_byte() -> None:
    seen: list[bytes] = []

    def look(hub: str, heard: Heard) -> Heard:
        seen.append(msgspec.msgpack.encode(heard))
        return heard

    carried({hub: talk(hub) for hub in HUBS}, look)
    assert len(seen) == 4 * 3
    assert not any(CANARY in raw for raw in seen)
    one, two = talk("east"), talk("north")
    assert one.begin() == one.begin()
    west = talk("west")
    hello = {"north": two.begin().boxes["east"], "west": west.begin().boxes["east"]}
    first = one.hear(Heard(SESSION, 0, hello))
    assert one.hear(Heard(SESSION, 0, hello)) == first  # offered again: the program did not move


@pytest.mark.parametrize("step", [0, 1, 3])
@pytest.mark.parametrize("how", ["a bit", "another hub's box", "an earlier box", "cut", "empty"])
@pytest.mark.requirement("NF-SRS-5")
def test_a_coordinator_that_changes_a_box_stops_the_talk(step: int, how: str) -> None:
    old: dict[str, bytes] = {}

    def change(hub: str, heard: Heard) -> Heard:
        if hub == "east":
            box = heard.boxes["north"]
            if heard.step == step:
                new = {
                    "a bit": bytes([*box[:-1], box[-1] ^ 1]),
                    "another hub's box": heard.boxes["west"],
                    "an earlier box": old.get("north", b"\x01" * 40),
                    "cut": box[:-1],
                    "empty": b"",
                }[how]
                return msgspec.structs.replace(heard, boxes=heard.boxes | {"north": new})
            old["north"] = box
        return heard

    talks = {hub: talk(hub) for hub in HUBS}
    ended = carried(talks, change)
    assert isinstance(ended["east"], Malformed | BadSignature | Equivocation)
    assert not any(isinstance(e, Ended) for e in ended.values()) or step == 3
    with pytest.raises(OutOfOrder):  # it is over for good
        talks["east"].hear(Heard(SESSION, step, {}))


def test_hubs_that_were_told_different_questions_do_not_understand_each_other() -> None:
    talks = {hub: talk(hub) for hub in HUBS}
    talks["north"] = talk("north", session_digest(bytes(32), bytes(32), HUBS, b"r" * 32))
    hello = {hub: talks[hub].begin().boxes["east"] for hub in ("north", "west")}
    with pytest.raises(Equivocation):
        begun(talk("east")).hear(Heard(SESSION, 0, hello))
    key = msgspec.msgpack.decode(hello["north"], type=Hello)
    forged = msgspec.msgpack.encode(msgspec.structs.replace(key, session=SESSION))
    with pytest.raises(BadSignature):  # nor does it help to say that it was told the same
        begun(talk("east")).hear(Heard(SESSION, 0, hello | {"north": forged}))


def begun(one: Talk[list[dict[int, bytes]]]) -> Talk[list[dict[int, bytes]]]:
    one.begin()
    return one


def test_a_step_out_of_order_changes_nothing() -> None:
    east = begun(talk("east"))
    others = {hub: talk(hub).begin().boxes["east"] for hub in ("north", "west")}
    for wrong in (Heard(SESSION, 1, others), Heard(b"x" * 32, 0, others)):
        with pytest.raises(OutOfOrder):
            east.hear(wrong)
    with pytest.raises(Equivocation):
        east.hear(Heard(SESSION, 0, {"north": others["north"]}))
    assert isinstance(east.hear(Heard(SESSION, 0, others)), Said)


def test_a_program_that_says_too_much_or_not_to_all_is_our_fault() -> None:
    def talkative() -> Program[None]:
        yield {2: bytes(MAX_BOX_BYTES), 3: b""}

    def selective() -> Program[None]:
        yield {2: b""}

    others = {hub: talk(hub).begin().boxes["east"] for hub in ("north", "west")}
    for program in (talkative, selective):
        one = Talk("east", HUBS, SESSION, KEYS, Party("east").signing, bytes(32), program)
        one.begin()
        with pytest.raises(MisuseError):
            one.hear(Heard(SESSION, 0, others))


def test_the_relay_takes_no_step_of_another_talk_and_counts_no_hub_twice() -> None:
    posted: list[str] = []

    def post(hub: str, heard: Heard) -> tuple[bytes, bytes]:
        posted.append(hub)
        return hub.encode(), b""

    relay = TalkRelay(7, SESSION, HUBS, post)
    with pytest.raises(Equivocation):
        relay.take("east", msgspec.structs.replace(talk("east").begin(), session=b"y" * 32))
    with pytest.raises(Equivocation):
        relay.take("east", talk("north").begin())
    relay.take("east", talk("east").begin())
    relay.take("east", talk("east").begin())
    assert posted == []
    assert relay.silent() == ["north", "west"]
    relay.take("north", talk("north").begin())
    relay.take("west", talk("west").begin())
    assert posted == list(HUBS)
    assert relay.asked(b"north") == "north"
