"""How envelopes travel: the engine's wire with durable mailboxes, and a channel within one process."""
