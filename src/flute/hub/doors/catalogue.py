"""Routes of the steward's door for the catalogue and for the FHIR face; `hub.doors.door` takes them in."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from msgspec import Meta, Struct

from flute.catalogue.croissant import croissant
from flute.catalogue.dcat import STATISTICS_FILE, dcat_jsonld, dcat_nodes
from flute.catalogue.sample import sample_csv, sample_name, sidecar
from flute.catalogue.statistics import Statistics
from flute.catalogue.turtle import turtle
from flute.catalogue.vocabulary import PREFIXES
from flute.defaults.records import CATALOGUE_BINS
from flute.http import json_answer, read_json, read_stream
from flute.hub.parts import Parts
from flute.hub.records.catalogue import Catalogue
from flute.hub.records.publishing import published
from flute.ledger.lines.entries import PersonAct
from flute.messages.limits import Code, Count, Name, PartyId

_MAX_BODY_BYTES = 2**20
DATASETS: Final = "/face/datasets"
READS: Final = "/face/reads"
"""What the FHIR face, a process of its own, asks of the hub: which snapshots are current, and to journal a read."""
_Word = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z]+\Z")]


class DeclareAsked(Struct, frozen=True, forbid_unknown_fields=True):
    """`text`: the entry's file."""

    text: Annotated[str, Meta(max_length=256 * 1024)]
    person: PartyId


class ReleaseAsked(Struct, frozen=True, forbid_unknown_fields=True):
    epsilon: Annotated[float, Meta(gt=0, le=100)]
    person: PartyId
    bins: Annotated[int, Meta(ge=4, le=1024)] = CATALOGUE_BINS
    variables: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()


class PublishAsked(Struct, frozen=True, forbid_unknown_fields=True):
    """`shown`: False takes the dataset out of the federation's catalogue."""

    person: PartyId
    shown: bool = True


class FaceRead(Struct, frozen=True, forbid_unknown_fields=True):
    """`person`: hexadecimal digest of the pseudonym, or empty."""

    holder: PartyId
    dataset: Name
    what: Code
    kind: _Word
    person: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")]
    resources: Count

    @property
    def line(self) -> PersonAct:
        whose = f" of patient {self.person[:12]}" if self.person else ""
        said = f"{self.dataset}/{self.kind}{whose}, {self.resources} resources"
        return PersonAct(self.holder, f"face-{self.what}", said)


def catalogue_routes(parts: Parts, catalogue: Catalogue) -> APIRouter:
    """For `app.include_router`. Errors of ours are answered by the door."""
    router = APIRouter()

    @router.get("/catalogue/{dataset}")
    def shown(dataset: str) -> Response:
        return json_answer(view(catalogue, dataset))

    @router.get("/catalogue/{dataset}/files")
    def files(dataset: str) -> Response:
        made = entry_files(catalogue, dataset)
        return json_answer({name: base64.b64encode(content).decode() for name, content in made.items()})

    @router.put("/catalogue/{dataset}")
    async def declare(dataset: str, request: Request) -> Response:
        asked = read_json(await read_stream(request, _MAX_BODY_BYTES), DeclareAsked)
        await run_in_threadpool(lambda: catalogue.declare(dataset, asked.text, person=asked.person))
        return json_answer(await run_in_threadpool(lambda: view(catalogue, dataset)))

    @router.post("/catalogue/{dataset}/release")
    async def release(dataset: str, request: Request) -> Response:
        asked = read_json(await read_stream(request, _MAX_BODY_BYTES), ReleaseAsked)
        await run_in_threadpool(
            lambda: catalogue.release(
                dataset, epsilon=asked.epsilon, person=asked.person, bins=asked.bins, variables=asked.variables
            )
        )
        return json_answer(await run_in_threadpool(lambda: view(catalogue, dataset)))

    @router.post("/catalogue/{dataset}/publish")
    async def publish(dataset: str, request: Request) -> Response:
        asked = read_json(await read_stream(request, _MAX_BODY_BYTES), PublishAsked)
        signed = await run_in_threadpool(
            lambda: published(parts, catalogue, dataset, person=asked.person, shown=asked.shown)
        )
        return json_answer(signed)

    @router.get(DATASETS)
    def datasets() -> Response:
        hidden = parts.store.policy().hidden
        return json_answer([
            {
                "name": d.name, "snapshot": d.snapshot.hex(), "variables": msgspec.to_builtins(d.variables),
                "imported_at": d.imported_at, "simulated": d.simulated, "hidden": list(hidden),
            }
            for d in parts.store.datasets()
        ])  # fmt: skip

    @router.post(READS)
    async def note_read(request: Request) -> Response:
        read = read_json(await read_stream(request, _MAX_BODY_BYTES), FaceRead)
        await run_in_threadpool(lambda: parts.journal.append(read.line, parts.now()))
        return json_answer({})

    return router


def view(catalogue: Catalogue, dataset: str) -> dict[str, Any]:
    """Budget and released statistics of a dataset, for its steward."""
    released = catalogue.released(dataset)
    return {
        "dataset": dataset,
        "declared": catalogue.is_declared(dataset),
        "budget": catalogue.budget(dataset),
        "statistics": None if released is None else msgspec.to_builtins(released),
        "sentence": "" if released is None else released.sentence,
        "current": released is not None and catalogue.is_current(dataset, released),
    }


def entry_files(catalogue: Catalogue, dataset: str) -> dict[str, bytes]:
    """The entry for people who publish it: file name to content. Raises: NotPossible, StudyFileError."""
    entry = catalogue.entry(dataset)
    stem, sample = sample_name(entry), sample_csv(entry)
    files = {
        "dcat.jsonld": dcat_jsonld(entry, f"{stem}.csv"),
        "dcat.ttl": turtle(dcat_nodes(entry, f"{stem}.csv"), PREFIXES),
        "croissant.json": croissant(entry, sample),
        f"{stem}.csv": sample,
        f"{stem}.txt": sidecar(entry),
    }
    if entry.statistics is not None:
        files[STATISTICS_FILE] = _statistics(entry.statistics)
    return files


def _statistics(statistics: Statistics) -> bytes:
    said = {"sentence": statistics.sentence, **msgspec.to_builtins(statistics)}
    return msgspec.json.format(msgspec.json.encode(said)) + b"\n"
