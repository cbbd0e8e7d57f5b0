"""What a steward writes is read whole or refused with a line and a sentence that says what to write."""

from __future__ import annotations

import msgspec
import pytest

from flute.catalogue.entry import Entry, EntryVariable
from flute.catalogue.file import entry_variables, read_declaration
from flute.conformance.model import Coding
from flute.errors import StudyFileError
from support.catalogue_entries import HEART, VARIABLES, entry


def test_a_file_is_read_whole() -> None:
    declared, lines = read_declaration(HEART, path="heart.yaml")
    assert declared.title == "Heart failure clinic"
    assert declared.access.rights == "non-public"
    assert declared.period.start.isoformat() == "2018-01-01"
    assert lines["access", "rights"] == line_with(HEART, "rights:")


WRONG = {
    "an element nobody knows": ("purpose:", "purpos:", "purpos:", "did you mean 'purpose'?"),
    "an element of a block nobody knows": ("  type: inpatient", "  typ: inpatient", "  typ:", "did you mean 'type'?"),
    "no title": ("title: Heart failure clinic\n", "", "flute: 1", "needs an element 'title'"),
    "a category the law does not know": ("[EHRS]", "[EHR]", "[EHR]", "entry 1 of category is the text 'EHR'"),
    "no keyword": ("[heart failure, echocardiography]", "[]", "keywords", "keywords is an empty list"),
    "a code without a system": (
        '"http://snomed.info/sct|77176002|Smoker"',
        "77176002",
        "smoker",
        "system, bar, code",
    ),
    "rights nobody grants": (
        "rights: non-public",
        "rights: open",
        "rights",
        "write non-public, restricted or public",
    ),
    "a day that is none": ("2018-01-01", "2018-02-30", "period", "is no day of the calendar"),
    "a period upside down": ("until: 2024-12-31", "until: 2017-12-31", "period", "before it begins"),
    "ages upside down": ("[18, 100]", "[100, 18]", "ages", "from a higher to a lower age"),
    "records kept too short": ("2035-12-31", "2020-12-31", "retain_until", "before the last record"),
    "a contact nobody can reach": (
        "contact: {email: data@hospital.example.org}",
        "contact: {}",
        "contact",
        "reached",
    ),
    "an e-mail that is none": ("contact: {email: data@", "contact: {email: data-", "contact", "an e-mail address"),
    "an address that is none": ("address: https://", "address: ftp://", "address", "begins with https://"),
    "a title YAML reads as no": ("Heart failure clinic", "no", "title", "a bare no"),
    "another form's version": ("flute: 1", "flute: 2", "flute", "write 'flute: 1'"),
    "a country in words": ("[ESP]", "[Spain]", "country", "three-letter country codes"),
    "too long a description": ("Systolic blood pressure, seated", "x" * 501, "xxx", "in up to 500 characters"),
    "a tab": ("contact: {", "\tcontact: {", "contact", "there is a tab"),
    "an element twice": ("category: [EHRS]", "x: 1\ncategory: [EHRS]\ncategory: [EHR]", "[EHR]", "stands here twice"),
}


def line_with(text: str, words: str) -> int:
    return next(i for i, line in enumerate(text.splitlines(), 1) if words in line)


@pytest.mark.parametrize(("old", "new", "at", "says"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_points_at_a_line_and_says_what_to_write(old: str, new: str, at: str, says: str) -> None:
    assert old in HEART
    damaged = HEART.replace(old, new)
    with pytest.raises(StudyFileError) as caught:
        read_declaration(damaged, path="heart.yaml")
    assert says in caught.value.text
    assert caught.value.line == line_with(damaged, at)
    assert caught.value.path == "heart.yaml"
    assert "study file" not in caught.value.text


def test_a_file_that_is_something_else_says_so() -> None:
    with pytest.raises(StudyFileError, match="This is no catalogue entry"):
        read_declaration("- heart\n", path="heart.yaml")


def test_a_variable_that_the_dataset_lacks_is_named_with_its_line() -> None:
    misspelt = HEART.replace("  smoker:", "  smokr:")
    declared, lines = read_declaration(misspelt, path="heart.yaml")
    with pytest.raises(StudyFileError, match="did you mean 'smoker'") as caught:
        entry_variables(declared, VARIABLES, lines, path="heart.yaml", codes={})
    assert caught.value.line == line_with(misspelt, "smokr:")


def test_codes_known_otherwise_serve_where_the_file_has_none() -> None:
    declared, lines = read_declaration(HEART, path="heart.yaml")
    known = {"age": (Coding("urn:a", "1"),), "smoker": (Coding("urn:a", "2"),)}
    shown = {v.variable.name: v for v in entry_variables(declared, VARIABLES, lines, path="", codes=known)}
    assert shown["age"].codes == (Coding("urn:a", "1"),)
    assert shown["smoker"].codes == (Coding("http://snomed.info/sct", "77176002", "Smoker"),)


def test_every_column_is_described_even_where_nobody_wrote_anything() -> None:
    assert [v.text for v in entry().variables] == [
        "Age. A number from 18 to 110 a.",
        "Systolic blood pressure, seated. A number from 60 to 260 mm[Hg].",
        "Smokes. 0 or 1.",
        "Class of severity. One of: low, middle, high.",
    ]
    assert EntryVariable(VARIABLES[1], "").text == "A number from 60 to 260 mm[Hg]."


def test_an_entry_has_no_room_for_anything_else() -> None:
    raw = msgspec.json.decode(msgspec.json.encode(entry()))
    raw["rows"] = [[1, 2, 3]]
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert(raw, type=Entry)
