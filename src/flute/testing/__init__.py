"""What an algorithm's own tests call: does it keep the contract that hubs and hospitals rely on?

    from flute.testing import Example, check_algorithm
    check_algorithm(registration, Example(spec, variables))

Nothing here is used when a study runs. `check` lists what is looked at, in which order.
"""

from flute.testing.check import CHECKS, check_algorithm
from flute.testing.example import Example, NotConforming

__all__ = ["CHECKS", "Example", "NotConforming", "check_algorithm"]
