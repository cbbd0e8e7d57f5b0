"""Pages of the report's family in a real browser: narrow, dark, by keyboard. Needs `chromium`; skipped without."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from flute.report.attacked import render_attacks
from flute.report.render import render_html
from unit.attack_sample import AGAIN, agreement, verdicts
from unit.report_answers import released, report_of

CHROMIUM: Final = shutil.which("chromium") or ""
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
OPTIONS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--virtual-time-budget=2000",
)  # fmt: skip
DARK: Final = "--blink-settings=preferredColorScheme=0"
WIDTHS: Final = (400, 1280)
PROBE: Final = """
<script>
const rgb = c => (c.match(/[\\d.]+/g) || []).map(Number);
const light = c => { const [r, g, b] = rgb(c).slice(0, 3).map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if ((rgb(c)[3] ?? 1) > 0.99) return c } return "rgb(255, 255, 255)" };
const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
  return (x + .05) / (y + .05) };
const worst = sample => Object.entries(sample).sort((a, b) => a[1] - b[1]).slice(0, 3);
addEventListener("load", () => {
  focus();
  document.querySelectorAll("details").forEach(d => d.open = true);
  const wide = innerWidth, out = [], texts = {}, focused = [];
  for (const e of document.querySelectorAll("main *, header *, .banner, nav *, footer *")) {
    const box = e.getBoundingClientRect();
    if (!e.closest(".scroll") && !e.closest(".hidden") && box.width && (box.right > wide + 1 || box.left < -1))
      out.push(e.tagName + "." + e.getAttribute("class"));
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (own && box.width && !e.closest(".hidden")) {
      const style = getComputedStyle(e), ink = e.tagName === "text" ? style.fill : style.color;
      texts[e.tagName + "." + e.getAttribute("class")] = contrast(ink, ground(e));
    }
  }
  for (const e of document.querySelectorAll("a[href], summary, [tabindex='0']")) {
    e.focus({focusVisible: true});
    if (document.activeElement !== e) { focused.push("not reached: " + e.outerHTML.slice(0, 60)); continue }
    if (!(parseFloat(getComputedStyle(e).outlineWidth) >= 2)) focused.push("no ring: " + e.outerHTML.slice(0, 60));
  }
  const said = {width: wide, page: document.documentElement.scrollWidth, out, worst: worst(texts), focused,
    stops: document.querySelectorAll("a[href], summary, [tabindex='0']").length, dark: ground(document.body)};
  parent.postMessage(JSON.stringify(said), "*");
});
</script>
"""


FRAME: Final = """<!doctype html><meta charset="utf-8"><pre id="said"></pre>
<script>addEventListener("message", e => document.getElementById("said").textContent = e.data)</script>
<iframe src="page.html" style="border:0;width:WIDTHpx;height:2000px"></iframe>"""
"""A window of any width: a browser's own has at least 500 pixels."""


def seen(html: str, folder: Path, width: int, *options: str) -> dict[str, Any]:
    """What the browser makes of a page. The probe stands in a copy, without the policy that forbids it."""
    copy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html).replace("</head>", PROBE + "</head>")
    (folder / "page.html").write_text(copy, encoding="utf-8")
    path = folder / "frame.html"
    path.write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    own = (f"--user-data-dir={folder / 'profile'}", f"--window-size={width + 40},2100", "--dump-dom")
    done = subprocess.run(
        [CHROMIUM, *OPTIONS, *own, *options, path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    said = re.search(r'<pre id="said">(.*?)</pre>', done.stdout, re.DOTALL)
    assert said, done.stderr[-400:]
    assert said.group(1), "the probe said nothing"
    found: dict[str, Any] = json.loads(said.group(1).replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))
    return found


def pages() -> dict[str, str]:
    return {
        "attacks": render_attacks(agreement(), verdicts(), at=0, again=AGAIN),
        "answers": render_html(report_of(released("private"), "private")),
    }


@pytest.mark.parametrize("name", ["attacks", "answers"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_its_window_has_contrast_and_can_be_walked_by_keyboard(
    name: str, scheme: str, tmp_path: Path
) -> None:
    for width in WIDTHS if scheme == "light" else WIDTHS[:1]:
        found = seen(pages()[name], tmp_path, width, *((DARK,) if scheme == "dark" else ()))
        assert found["width"] == width
        assert found["page"] <= width
        assert found["out"] == []
        assert all(ratio >= 4.5 for _, ratio in found["worst"]), found["worst"]
        assert found["stops"] > 8
        assert found["focused"] == []
        assert (found["dark"] == "rgb(17, 22, 27)") is (scheme == "dark")


def test_the_probe_sees_a_page_that_is_too_wide_pale_and_without_a_ring(tmp_path: Path) -> None:
    spoilt = pages()["attacks"].replace(
        "</style>",
        ".takeaway{color:#bbb!important;width:900px;max-width:none!important}:focus-visible{outline:0!important}</style>",
    )
    found = seen(spoilt, tmp_path, 400)
    assert found["out"]
    assert found["worst"][0][1] < 3
    assert any(f.startswith("no ring") for f in found["focused"])
