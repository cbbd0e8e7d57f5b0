"""From a question that came in to a sealed answer: the gate, the round, each plan's protocol."""
