"""SPU's ABY3 on the rows of `joint_data`: logistic regression and the median, three hubs, three processes.

    python benchmarks/spu_regression.py [--tasks newton series median] [--certificates FOLDER] [--routes JSON]

Run by the Python that `benchmarks/spu_environment.py` prints; one line of JSON for each task. SPU is maintained,
Apache-2.0, and withstands ONE hub that is curious but keeps to the protocol; a hub that does not is not noticed.

- newton: Newton's method, 6 steps from 0, each inverting the Hessian by elimination: eight divisions one after
  another. As a user writes it.
- series: the same steps; X'X / 4 alone is inverted by elimination, and its inverse, improved by five Newton-Schulz
  steps, inverts each Hessian. Less processor time, a third of the messages.
- median: of all measured values, by SPU's own selection.

Settings as they have to be: a 128-bit ring with 40 fraction bits (64 bits lose 4 % of a chi-squared statistic), the
exponential by Pade's approximation (the default errs by 2e-3 in coefficients). Hubs make shares of their own rows,
send them over SPU's link, and open the result alone. `--certificates`: SPU's mutual TLS, with name.pem, name.key and
authority.pem of each hub there; it accepts any certificate of that authority from anybody (`peer_proxy.py` does not).
`--routes`: [place][peer] address, where proxies stand between.

Counted: processor time of the hub that used most, from its rows to the opened result; compiling the program, which
happens once for a shape, apart. Bytes and messages: what SPU's link says it sent, and the shares sent before.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import spu
import spu.utils.frontend as frontend
from joint_data import HUBS, HubRows, joint_rows, plain_fit, plain_median, with_intercept
from spu import libspu

ITERATIONS, SCHULZ_STEPS = 6, 5
HUB_NAMES = tuple(f"hub-{place + 1}.example" for place in range(HUBS))
Routes = Sequence[Sequence[str]]
PATIENCE_S = 300
CLOSING_S = 2
"""After all results: SPU's link may wait longer for a peer that has closed before it."""
LINK_SAID = re.compile(r"Link details: total send bytes (\d+), .* send actions (\d+)")
ALLOWED = {"newton": 1e-4, "series": 1e-4, "median": 0.0}
"""Largest error with which a result counts as right."""


class Spent(NamedTuple):
    value: Any
    cpu_s: float
    compile_cpu_s: float
    wall_s: float
    sent_bytes: int
    sends: int


def inverse(matrix: Any) -> Any:
    """Gauss-Jordan elimination without pivoting: the matrix is positive definite."""
    size = matrix.shape[0]
    eye = np.eye(size, dtype=np.float32)
    rows = jnp.concatenate([matrix, eye], axis=1)
    for k in range(size):
        rows = rows - jnp.outer(rows[:, k] - eye[k], rows[k] / rows[k, k])
    return rows[:, size:]


def system(x: Any, y: Any, coefficients: Any) -> Any:
    """Hessian and gradient of the mean log-likelihood side by side, [p, p + 1]: one product over all rows."""
    fitted = 1 / (1 + jnp.exp(-(x @ coefficients)))
    columns = [x * (fitted * (1 - fitted))[:, None], (y - fitted)[:, None]]
    return x.T @ jnp.concatenate(columns, axis=1) / len(x)


def newton(x: Any, y: Any) -> Any:
    coefficients = jnp.zeros(x.shape[1])
    for _ in range(ITERATIONS):
        both = system(x, y, coefficients)
        coefficients = coefficients + inverse(both[:, :-1]) @ both[:, -1]
    return coefficients


def series(x: Any, y: Any) -> Any:
    twice = 2 * np.eye(x.shape[1], dtype=np.float32)
    bound = inverse(x.T @ x / (4 * len(x)))
    coefficients = bound @ (x.T @ (y - 0.5) / len(x))
    for _ in range(ITERATIONS - 1):
        both = system(x, y, coefficients)
        inverted = bound
        for _ in range(SCHULZ_STEPS):
            inverted = inverted @ (twice - both[:, :-1] @ inverted)
        coefficients = coefficients + inverted @ both[:, -1]
    return coefficients


def regression(method: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def program(*parts: Any) -> Any:
        return method(jnp.concatenate(parts[0::2]), jnp.concatenate(parts[1::2]))

    return program


def median(*parts: Any) -> Any:
    values = jnp.concatenate(parts)
    return jnp.sort(values)[(len(values) - 1) // 2]


PROGRAMS = {"newton": regression(newton), "series": regression(series), "median": median}


def own_values(task: str, rows: HubRows) -> list[np.ndarray]:
    if task == "median":
        return [rows.measured.astype(np.int32)]
    return [with_intercept(rows.predictors).astype(np.float32), rows.outcome.astype(np.float32)]


def error(task: str, value: Any) -> float:
    cohort = joint_rows()
    if task == "median":
        return float(abs(int(value) - plain_median(cohort)))
    return float(np.abs(value - plain_fit(cohort, ITERATIONS)).max())


def settings() -> Any:
    config = libspu.RuntimeConfig(protocol=libspu.ProtocolKind.ABY3, field=libspu.FieldType.FM128)
    config.fxp_fraction_bits = 40
    config.fxp_exp_mode = libspu.RuntimeConfig.EXP_PADE
    config.enable_pphlo_profile = True  # the only place that says what was sent
    return config


def link(place: int, addresses: Sequence[str], certificates: Path | None) -> Any:
    described = libspu.link.Desc()
    for name, address in zip(HUB_NAMES, addresses, strict=True):
        described.add_party(name, address)
    if certificates is not None:
        described.enable_ssl = True
        for side in (described.client_ssl_opts, described.server_ssl_opts):  # both exist already: set in place
            side.cert.certificate_path = str(certificates / f"{HUB_NAMES[place]}.pem")
            side.cert.private_key_path = str(certificates / f"{HUB_NAMES[place]}.key")
            side.verify.ca_file_path = str(certificates / "authority.pem")
            side.verify.verify_depth = 2
    return libspu.link.create_brpc(described, place)


def input_name(place: int, k: int) -> str:
    return f"{place}/{k}"


def compiled(program: Callable[..., Any], values: list[np.ndarray]) -> Any:
    names = [input_name(place, k) for place in range(HUBS) for k in range(len(values))]
    hidden = [libspu.VIS_SECRET] * len(names)
    return frontend.compile(frontend.Kind.JAX, program, values * HUBS, {}, names, hidden, lambda _: ["result"])[0]


class Hub:
    """One hub at the link: sends shares, receives shares, opens with the others. Nothing of a peer is unpickled."""

    def __init__(self, place: int, connected: Any) -> None:
        self._place, self._link, self.sent_bytes = place, connected, 0
        self._config = settings()
        self._runtime, self._io = spu.Runtime(connected, self._config), spu.Io(HUBS, self._config)

    def run(self, executable: Any, values: list[np.ndarray]) -> Any:
        """The opened result."""
        for k, value in enumerate(values):
            shares = self._io.make_shares(value, libspu.VIS_SECRET)
            for place, share in enumerate(self._exchange(shares)):
                self._runtime.set_var(input_name(place, k), share)
        self._runtime.run(executable)
        own = self._runtime.get_var("result")
        return self._io.reconstruct(self._exchange([own] * HUBS))

    def _exchange(self, shares: list[Any]) -> list[Any]:
        """shares[i] goes to place i; what each place sent here comes back."""
        others = [place for place in range(HUBS) if place != self._place]
        for place in others:
            framed = b"".join(
                struct.pack("<Q", len(p)) + p for p in (shares[place].meta, *shares[place].share_chunks)
            )
            self._link.send(place, framed)
            self.sent_bytes += len(framed)
        heard = {place: _share(self._link.recv(place)) for place in others}
        return [heard.get(place, shares[place]) for place in range(HUBS)]


def _share(framed: bytes) -> Any:
    share = libspu.Share()
    share.meta, *share.share_chunks = _frames(framed)
    return share


def _frames(framed: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(framed):
        (size,) = struct.unpack_from("<Q", framed, at)
        yield framed[at + 8 : at + 8 + size]
        at += 8 + size


def hub_process(
    place: int, task: str, addresses: Sequence[str], certificates: Path | None, log: Path, told: Any
) -> None:
    options = libspu.logging.LogOptions()
    options.enable_console_logger, options.system_log_path = False, str(log)
    libspu.logging.setup_logging(options)
    values = own_values(task, joint_rows()[place])
    connected = link(place, addresses, certificates)
    hub = Hub(place, connected)
    begun = time.process_time()
    executable = compiled(PROGRAMS[task], values)
    connected.barrier()
    cpu, wall = time.process_time(), time.monotonic()
    value = np.asarray(hub.run(executable, values)).tolist()
    told.send((value, time.process_time() - cpu, cpu - begun, time.monotonic() - wall, hub.sent_bytes))
    connected.barrier()  # a hub that closes before its peers have heard all makes them retry and stand still
    connected.stop_link()


def run(task: str, routes: Routes, certificates: Path | None) -> list[Spent]:
    """What each hub spent. Raises: RuntimeError: a hub ended without a result."""
    start = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder, f"{place}.log") for place in range(HUBS)]
        pipes = [start.Pipe(duplex=False) for _ in range(HUBS)]
        hubs = [
            start.Process(target=hub_process, args=(place, task, routes[place], certificates, logs[place], told))
            for place, (_, told) in enumerate(pipes)
        ]
        for hub, (_, told) in zip(hubs, pipes, strict=True):
            hub.start()
            told.close()  # so that the end of a hub is the end of its pipe
        try:
            heard = [_heard(pipe) for pipe, _ in pipes]
            for hub in hubs:
                hub.join(CLOSING_S)
        finally:
            for hub in hubs:
                hub.kill()
        return [_spent(*told, log.read_text()) for told, log in zip(heard, logs, strict=True)]


def _heard(pipe: Any) -> tuple[Any, ...]:
    try:
        if pipe.poll(PATIENCE_S):
            return pipe.recv()  # type: ignore[no-any-return]
    except EOFError:
        pass
    raise RuntimeError("A hub of SPU ended, or stood still, before it had a result.")


def _spent(value: Any, cpu_s: float, compile_cpu_s: float, wall_s: float, sent: int, log: str) -> Spent:
    said = LINK_SAID.search(log)
    if said is None:
        raise RuntimeError("SPU's log does not say what its link sent.")
    return Spent(value, cpu_s, compile_cpu_s, wall_s, sent + int(said[1]), int(said[2]))


def figures(task: str, hubs: list[Spent]) -> dict[str, Any]:
    wrong = max(error(task, hub.value) for hub in hubs)
    return {
        "task": task,
        "cpu_s": max(hub.cpu_s for hub in hubs),
        "compile_cpu_s": max(hub.compile_cpu_s for hub in hubs),
        "wall_s": max(hub.wall_s for hub in hubs),
        "sent_mb": max(hub.sent_bytes for hub in hubs) / 1e6,
        "sends": max(hub.sends for hub in hubs),
        "error": wrong,
        "right": wrong <= ALLOWED[task],
        "spu_version": version("spu"),
    }


def free_routes() -> list[list[str]]:
    """Every hub at a free port of this machine, the same for all."""
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(HUBS)]
    addresses = [f"127.0.0.1:{taken.getsockname()[1]}" for taken in listening]
    for taken in listening:
        taken.close()
    return [addresses] * HUBS


def main() -> None:
    parser = argparse.ArgumentParser(description="SPU's ABY3 on three hubs' rows: processor time, bytes, error.")
    parser.add_argument("--tasks", nargs="+", choices=tuple(PROGRAMS), default=list(PROGRAMS))
    parser.add_argument("--certificates", type=Path, help="mutual TLS of SPU's own, with what lies there")
    parser.add_argument("--routes", type=json.loads, help="[place][peer] address; free ports if left out")
    wanted = parser.parse_args()
    for task in wanted.tasks:
        hubs = run(task, wanted.routes or free_routes(), wanted.certificates)
        print(json.dumps(figures(task, hubs)), flush=True)


if __name__ == "__main__":
    main()
