"""Make the pictures of docs/tutorial-hub.md: `python docs/make_hub_pictures.py`. Needs `chromium`.

The commands are the tutorial's own; the pictures are of the pages that they write, cropped to what is spoken of.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
PAGE: Final = HERE / "tutorial-hub.md"
IMAGES: Final = HERE / "images"
UNTIL: Final = "broken.html"
"""The last file that is pictured: commands behind the one that writes it are not carried out."""
START_S: Final = 15
CHROMIUM: Final = (
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
DARK: Final = "--blink-settings=preferredColorScheme=0"
MAX_BYTES: Final = 250_000


def commands() -> str:
    """The page's shell blocks up to the one that writes UNTIL."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    last = next(n for n, block in enumerate(blocks) if UNTIL in block)
    waited = [f"{b}\nsleep {START_S}" if "flute hub serve" in b else b for b in blocks[: last + 1]]
    return "\n".join(["set -e", 'trap "jobs -p | xargs -r kill" EXIT', *waited])


def walk(folder: Path) -> Path:
    """The folder in which the tutorial's reader stands, with everything written."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", commands()], cwd=folder, env=environment, check=True)
    return folder / "first-hub"


def section(page: Path, name: str) -> Path:
    """One section of a page as a page of its own, in the same clothes."""
    text = page.read_text(encoding="utf-8")
    head = text[: text.index("<body>")].replace(
        "</style>", "section{margin:1.2rem!important}main{max-width:none}</style>"
    )
    start = text.index(f'<section id="{name}"')
    inner = text[start : text.index("</section>", start)]
    part = page.with_name(f"{page.stem}-{name}.html")
    part.write_text(f"{head}<body><main>{inner}</section></main></body></html>", encoding="utf-8")
    return part


def picture(name: str, page: Path, width: int, height: int, *options: str) -> None:
    out = IMAGES / f"hub-{name}.png"
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        own = (f"--user-data-dir={profile}", f"--window-size={width},{height}", f"--screenshot={out}")
        subprocess.run([*CHROMIUM, *own, *options, page.as_uri()], check=True, capture_output=True, timeout=120)
    size = out.stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f"{out.name} has {size:,} bytes, more than {MAX_BYTES:,}; crop it.")
    print(f"Wrote {out.relative_to(HERE.parent)}, {size:,} bytes.")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="hub-pictures-") as folder:
        reader = walk(Path(folder))
        drawn = (reader / "flow.svg").read_text(encoding="utf-8")
        width, height = (int(n) for n in re.findall(r'viewBox="0 0 (\d+) (\d+)"', drawn)[0])
        picture("import", reader / "import.html", 1280, 420)
        picture("flow", reader / "flow.svg", width, height, DARK)
        picture("refused", section(reader / "broken.html", "refused"), 900, 260)
        time.sleep(1)  # the hub, which was told to stop, is still writing its last line


if __name__ == "__main__":
    main()
