"""The description of a dataset meets HealthDCAT-AP's shapes, and broken ones are caught by them.

The shapes are ours, from the standards' text (`support/shapes`). FLUTE_SHAPES=DIR holds the same description against
the standards' own files where somebody has them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyshacl
import pytest
import rdflib
from rdflib.compare import isomorphic
from rdflib.namespace import DCAT, DCTERMS, RDF

from flute.catalogue.dcat import dcat_jsonld, dcat_nodes
from flute.catalogue.entry import Entry
from flute.catalogue.turtle import turtle
from flute.catalogue.vocabulary import PREFIXES, SCHEMES, Graph
from flute.errors import MisuseError
from support.catalogue_entries import HEART, SNAPSHOT, entry

SHAPES = Path(__file__).resolve().parents[1] / "support" / "shapes"
SAMPLE = "heart-SYNTHETIC.csv"
AT = rdflib.URIRef("https://hospital.example.org/data/heart")
HEALTH = rdflib.Namespace(PREFIXES["healthdcatap"])
Node = dict[str, Any]


def shapes(folder: Path) -> rdflib.Graph:
    read = rdflib.Graph()
    for file in sorted(folder.glob("*.ttl")):
        read.parse(file, format="turtle")
    return read


def graph(nodes: Sequence[Node]) -> rdflib.Graph:
    document = msgspec.json.encode({"@context": dict(PREFIXES), "@graph": list(nodes)})
    return rdflib.Graph().parse(data=document, format="json-ld")


def conforms(data: rdflib.Graph, against: rdflib.Graph) -> tuple[bool, str]:
    held, _, report = pyshacl.validate(data, shacl_graph=against, allow_warnings=True)
    return held, report


OURS = shapes(SHAPES)


@pytest.mark.requirement("F-PIL-16")
@pytest.mark.requirement("NF-PIL-6")
@pytest.mark.parametrize("simulated", [True, False])
@pytest.mark.parametrize("released", [True, False])
def test_a_description_meets_the_shapes_of_healthdcat_ap(simulated: bool, released: bool) -> None:
    made = entry(simulated=simulated) if released else entry(simulated=simulated, statistics=None)
    held, report = conforms(graph(dcat_nodes(made, SAMPLE)), OURS)
    assert held, report


def test_a_description_of_the_fewest_elements_meets_them_too() -> None:
    few = HEART[: HEART.index("theme:")]
    held, report = conforms(graph(dcat_nodes(entry(few, statistics=None), SAMPLE)), OURS)
    assert held, report


def test_a_description_meets_the_standards_own_shapes() -> None:
    folder = os.environ.get("FLUTE_SHAPES")
    if not folder:
        pytest.skip("the standards' own shapes are not in the project: FLUTE_SHAPES=DIR names a folder of them")
    held, report = conforms(graph(dcat_nodes(entry(), SAMPLE)), shapes(Path(folder)))
    assert held, report


def test_turtle_says_what_the_json_says() -> None:
    nodes = dcat_nodes(entry(), SAMPLE)
    read = rdflib.Graph().parse(data=turtle(nodes, PREFIXES), format="turtle")
    written = rdflib.Graph().parse(data=dcat_jsonld(entry(), SAMPLE), format="json-ld")
    assert len(read) > 200
    assert isomorphic(read, written)


def test_the_document_describes_one_dataset_and_no_catalogue() -> None:
    """A catalogue node would be held to a dataset's mandatory properties by a validator that knows DCAT's classes."""
    data = graph(dcat_nodes(entry(), SAMPLE))
    assert list(data.subjects(RDF.type, DCAT.Dataset)) == [AT]
    assert not list(data.subjects(RDF.type, DCAT.Catalog))


# --- broken descriptions -------------------------------------------------------------------------


def dropped(name: str, of: str = "") -> Callable[[list[Node]], None]:
    def damage(nodes: list[Node]) -> None:
        del find(nodes, of)[name]

    return damage


def replaced(name: str, value: Any, of: str = "") -> Callable[[list[Node]], None]:
    def damage(nodes: list[Node]) -> None:
        assert name in find(nodes, of)
        find(nodes, of)[name] = value

    return damage


def find(nodes: list[Node], part: str) -> Node:
    return next(n for n in nodes if n["@id"] == str(AT) + part)


def words(*texts: str) -> list[Node]:
    return [{"@value": text, "@language": "en"} for text in texts]


def ref(address: str) -> Node:
    return {"@id": address}


BROKEN: dict[str, Callable[[list[Node]], None]] = {
    "no title": dropped("dct:title"),
    "no description": dropped("dct:description"),
    "no identifier": dropped("dct:identifier"),
    "no keyword": dropped("dcat:keyword"),
    "no theme": dropped("dcat:theme"),
    "another theme than health": replaced(
        "dcat:theme", ref("http://publications.europa.eu/resource/authority/data-theme/ENER")
    ),
    "no access rights": dropped("dct:accessRights"),
    "open to everybody": replaced(
        "dct:accessRights", ref("http://publications.europa.eu/resource/authority/access-right/PUBLIC")
    ),
    "no law": dropped("dcatap:applicableLegislation"),
    "a law in words": replaced("dcatap:applicableLegislation", words("EHDS")),
    "no distribution": dropped("dcat:distribution"),
    "nowhere to ask for access": dropped("dcat:accessURL", "#access"),
    "a distribution under no law": dropped("dcatap:applicableLegislation", "#access"),
    "no access body": dropped("healthdcatap:hdab"),
    "an access body without a name": dropped("foaf:name", "#access-body"),
    "an access body nobody can reach": dropped("cv:contactPoint", "#access-body"),
    "two access bodies": replaced(
        "healthdcatap:hdab", [ref(f"{AT}#access-body"), ref(f"{AT}#publisher")]
    ),
    "a contact without address or page": dropped("vcard:hasEmail", "#contact"),
    "an e-mail that is no address": replaced("vcard:hasEmail", words("data@hospital.example.org"), "#contact"),
    "no contact": dropped("dcat:contactPoint"),
    "no provenance": dropped("dct:provenance"),
    "no type": dropped("dct:type"),
    "no health category": dropped("healthdcatap:healthCategory"),
    "a health category of our own": replaced(
        "healthdcatap:healthCategory", ref("https://hospital.example.org/categories/heart")
    ),
    "a health category that the law does not know": replaced(
        "healthdcatap:healthCategory", ref(f"{SCHEMES['healthcategories'][0]}/HEART")
    ),
    "structured data that are not said to be": dropped("healthdcatap:hasStructuredData"),
    "structured data without variables": dropped("healthdcatap:hasVariables"),
    "a variable without a description": dropped("dct:description", "#variable-age"),
    "a variable without a type": dropped("csvw:datatype", "#variable-age"),
    "a table without columns": dropped("csvw:column", "#table"),
    "fewer than no records": replaced(
        "healthdcatap:numberOfRecords", {"@value": "-3", "@type": "xsd:nonNegativeInteger"}
    ),
    "a fraction of a person": replaced(
        "healthdcatap:numberOfUniqueIndividuals", {"@value": "2013.4", "@type": "xsd:decimal"}
    ),
    "ages upside down": replaced("healthdcatap:minTypicalAge", {"@value": "101", "@type": "xsd:nonNegativeInteger"}),
    "personal data in words": replaced("dpv:hasPersonalData", words("age")),
    "a language of two letters": replaced(
        "dct:language", ref("http://publications.europa.eu/resource/authority/language/en")
    ),
    "a period that ends before it begins": replaced(
        "dcat:endDate", {"@value": "2001-01-01", "@type": "xsd:date"}, "#period"
    ),
    "a day that is words": replaced("dct:modified", words("yesterday")),
    "a coding system of our own": replaced("healthdcatap:hasCodingSystem", ref("http://loinc.org")),
    "two snapshots' identifiers in one": replaced("skos:notation", words(SNAPSHOT, SNAPSHOT[::-1]), "#snapshot"),
    "another kind of thing": replaced("@type", ["dcat:Catalog"]),
}  # fmt: skip


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_the_shapes_catch_what_is_broken(damage: Callable[[list[Node]], None]) -> None:
    nodes: list[Node] = msgspec.json.decode(msgspec.json.encode(dcat_nodes(entry(), SAMPLE)))
    assert conforms(graph(nodes), OURS)[0]
    damage(nodes)
    held, _ = conforms(graph(nodes), OURS)
    assert not held


# --- what is in it -------------------------------------------------------------------------------


def value(made: Entry, name: str) -> list[str]:
    data = graph(dcat_nodes(made, SAMPLE))
    return sorted(str(found) for found in data.objects(AT, rdflib.URIRef(name)))


def test_numbers_of_persons_are_given_only_where_they_were_released() -> None:
    count = f"{HEALTH}numberOfUniqueIndividuals"
    assert value(entry(), count) == ["2013"]
    assert value(entry(statistics=None), count) == []


def test_released_statistics_state_their_price_and_their_error() -> None:
    data = graph(dcat_nodes(entry(), SAMPLE))
    said = str(data.value(AT + "/statistics.json", DCTERMS.description))
    assert "epsilon 0.5 at delta 1e-06" in said
    assert "right within 61" in said


def test_simulated_records_are_said_to_be() -> None:
    made = entry(simulated=True)
    assert value(made, str(DCTERMS.title)) == ["SIMULATED: Heart failure clinic"]
    assert value(made, str(DCTERMS.type))[0].endswith("/SYNTHETIC_DATA")
    assert "SIMULATED" in value(made, str(DCAT.keyword))
    assert "SIMULATED" not in turtle(dcat_nodes(entry(simulated=False), SAMPLE), PREFIXES).decode()


def test_variables_come_with_their_codes_and_units() -> None:
    data = graph(dcat_nodes(entry(), SAMPLE))
    pressure = AT + "#variable-pressure"
    assert (
        str(data.value(pressure, rdflib.URIRef(PREFIXES["csvw"] + "propertyUrl"))) == "https://loinc.org/rdf/8480-6"
    )
    assert str(data.value(pressure, rdflib.URIRef(PREFIXES["schema"] + "unitCode"))) == "mm[Hg]"
    systems = value(entry(), f"{HEALTH}hasCodingSystem")
    assert [s.rsplit("/", 1)[1] for s in systems] == ["LOINC", "SNOMED-CT", "UCUM"]


def test_turtle_survives_what_people_write() -> None:
    said = {"@value": 'a "b"\\\n\tc\x01é', "@language": "en"}
    nodes = [{"@id": "urn:x:1", "@type": ["skos:Concept"], "dct:title": said}]
    read = rdflib.Graph().parse(data=turtle(nodes, PREFIXES), format="turtle")
    assert str(read.value(rdflib.URIRef("urn:x:1"), DCTERMS.title)) == said["@value"]


@pytest.mark.parametrize("address", ["http://x y", "http://x>", "nothing", 'http://x"', "http://x\n"])
def test_turtle_refuses_an_address_that_would_break_out(address: str) -> None:
    with pytest.raises(MisuseError):
        turtle([{"@id": address, "@type": ["skos:Concept"]}], PREFIXES)


def test_a_value_of_another_kind_is_refused_not_guessed_at() -> None:
    with pytest.raises(MisuseError):
        turtle([{"@id": "urn:x:1", "@type": ["skos:Concept"], "dct:title": 7}], PREFIXES)
    with pytest.raises(MisuseError):
        turtle([{"@id": "urn:x:1", "@type": ["nobody:Concept"]}], PREFIXES)


def test_a_term_is_said_once_however_often_it_is_used() -> None:
    used = Graph()
    used.term("language", "ENG")
    used.term("language", "ENG")
    assert len(used.nodes()) == 2
