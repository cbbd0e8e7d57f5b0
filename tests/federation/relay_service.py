"""A whole service in a process of its own, to be killed: notes every message it was given, then reports it done.

relay_service.py NAME FOLDER IDENTITY_FOLDER NOTES [ANSWER_TO]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flute.transport.identity import load_kit, open_authority
from flute.transport.relay import RelayChannel


def main() -> None:
    name, folder, home, notes, *answer_to = sys.argv[1:]
    kit = open_authority(Path(home)).kit if name == "coordinator" else load_kit(Path(home))
    channel = RelayChannel(Path(folder), name, kit)
    if name == "coordinator":
        channel.admit(["hub-a", "hub-b", "hub-c"])
    print(channel.relay_pid, flush=True)
    with Path(notes).open("ab", buffering=0) as file:
        while True:
            delivery = channel.receive(60.0)
            if delivery is None:
                return
            for recipient in answer_to:
                channel.send(recipient, delivery.body)
            os.write(file.fileno(), delivery.body + b"\n")
            channel.done(delivery)


if __name__ == "__main__":
    main()
