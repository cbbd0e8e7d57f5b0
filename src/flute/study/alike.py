"""Whether one agreement asks for no more than another in everything but its questions and their budget.

A steward who read one study may let further private ones follow that differ in nothing a data protection officer
decides about: who asks, whom, which records, why, on which ground, under which protection, until when.
"""

from __future__ import annotations

from flute.study.agreement import Agreement


def differences(new: Agreement, read: Agreement) -> tuple[str, ...]:
    """In what `new` goes beyond `read`, in words; none where it needs no new decision but for its budget."""
    pairs = (
        (new.researcher == read.researcher, "another researcher asks"),
        (sorted(new.hubs) == sorted(read.hubs), "it asks other hubs"),
        (new.least >= read.least, "it may be carried out by fewer hubs"),
        (new.dataset == read.dataset, "it asks about another dataset"),
        (new.purpose == read.purpose, "its purpose is worded otherwise"),
        (new.conditions == read.conditions, "its legal basis, ethics approval or retention differs"),
        (new.mode == read.mode == "private", "only private studies may follow one another unread"),
        (new.delta == read.delta, "its delta differs"),
        (new.plan == read.plan and new.guarantees == read.guarantees, "its answers are protected otherwise"),
        (new.code == read.code, "other code would answer it"),
        (new.simulated == read.simulated, "one of the two is about simulated records"),
        (new.max_patients == read.max_patients, "its bound on the number of patients differs"),
        (read.starts <= new.starts and new.ends <= read.ends, "its period reaches beyond the other's"),
        (_declared(new) <= _declared(read), "it declares variables that were not, or were declared otherwise"),
        (set(new.fields()) <= set(read.fields()), "it reads variables that the other did not"),
    )
    return tuple(words for same, words in pairs if not same)


def _declared(agreement: Agreement) -> set[str]:
    """What is declared of the variables: not how they enter a model, which reads nothing more."""
    return {repr(v.variable) for v in agreement.variables}
