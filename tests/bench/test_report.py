"""The page of a benchmark in a browser: sorted, filtered, with chosen columns and charts, on any screen."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from plugins.bench_rows import row

from sonew_compiled.bench._colours import colours
from sonew_compiled.bench.report import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)

# `preferredColorScheme` of Chromium's settings.
DARK, LIGHT = 0, 1

# What a user does, and what is seen then.
ACTIONS = """
const rows = () => [...document.querySelectorAll("#rows tbody tr:not([hidden])")];
const cells = (index) => rows().map((row) => row.cells[index].textContent);
const head = (name) => [...document.querySelectorAll("#rows th")].findIndex((th) => th.textContent === name);
const click = (name) => document.querySelectorAll("#rows th button")[head(name)].click();
const type = (words) => {
  document.getElementById("filter").value = words;
  document.getElementById("filter").dispatchEvent(new Event("input"));
};
const shown = (name) => getComputedStyle(document.querySelectorAll("#rows th")[head(name)]).display !== "none";
const names = (id) => document.getElementById(id).data.map((trace) => trace.name);
const seen = { errors };
seen.given = cells(head("optimizer"));
click("step p50 ms");
seen.rising = cells(head("step p50 ms"));
click("step p50 ms");
seen.falling = cells(head("step p50 ms"));
seen.sorted = document.querySelectorAll("#rows th")[head("step p50 ms")].ariaSort;
type("sgd laptop");
seen.filtered = cells(head("optimizer"));
seen.count = document.getElementById("count").value;
seen.drawn = names("step-time");
type("");
seen.all = names("step-time");
seen.curves = names("loss-epoch");
seen.column = [shown("settings"), shown("machine")];
const box = [...document.querySelectorAll("#columns label")].find((each) => each.textContent.trim() === "settings");
box.click();
seen.chosen = shown("settings");
seen.hosts = cells(head("machine"));
// Plotly draws a little later.
setTimeout(() => {
  seen.paper = getComputedStyle(document.body).backgroundColor;
  seen.plot = document.getElementById("loss-epoch").layout.paper_bgcolor;
  seen.legend = document.querySelector("#loss-epoch .legend").getBoundingClientRect().left;
  seen.curve = document.querySelector("#loss-epoch .scatterlayer").getBoundingClientRect().right;
  const buttons = [...document.querySelectorAll("#loss-epoch [data-title]")];
  seen.buttons = buttons.map((button) => button.dataset.title);
  seen.width = document.documentElement.scrollWidth;
  document.body.innerHTML = "";
  document.body.textContent = JSON.stringify(seen);
}, 500);
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two machines, one of which has a name that is also HTML."""
    steps = (("adam", 0.02), ("sgd", 0.009), ("tridiag-sonew", 0.1))
    found = [
        row(name, step=step * factor, machine=machine, host=host, peak_resident_bytes=10**8)
        for machine, host, factor in (("aaaa", "laptop", 1.0), ("bbbb", "<b>&amp;", 1.5))
        for name, step in steps
    ]
    found.append(row("adam", machine="cccc", host="broken", error="it failed", step=None, train_loss=None, curve=[]))
    folder = tmp_path_factory.mktemp("report")
    write_report(found, folder)
    return folder / "report.html"


def look(report: Path, *, width: int, scheme: int) -> dict[str, Any]:
    """What is seen of the page by a user of Chromium who does `ACTIONS`."""
    if BROWSER is None:
        pytest.skip("there is no Chromium: apt-get install chromium-headless-shell")
    page = report.read_text(encoding="utf-8")
    page = page.replace(
        "<head>", "<head><script>var errors = []; onerror = (said) => { errors.push(said) }</script>", 1
    )
    path = report.with_name(f"{width}-{scheme}.html")
    path.write_text(f"<script>{ACTIONS}</script></body>".join(page.rsplit("</body>", 1)), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom"]
    command += [f"--blink-settings=preferredColorScheme={scheme}", "--virtual-time-budget=2000", path.as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said = re.search(r"<body>(.*)</body>", ended.stdout, re.DOTALL)
    assert said is not None
    seen: dict[str, Any] = json.loads(html.unescape(said[1]))
    assert seen["errors"] == []
    return seen


def test_a_wide_page_is_sorted_filtered_and_drawn(report: Path) -> None:
    seen = look(report, width=1400, scheme=LIGHT)
    assert seen["given"] == [*2 * ["adam", "sgd", "tridiag-sonew"], "adam"]
    # By number and not by letter, and the line without one last either way.
    assert seen["rising"] == ["9.0", "13.5", "20.0", "30.0", "100.0", "150.0", ""]
    assert seen["falling"] == ["150.0", "100.0", "30.0", "20.0", "13.5", "9.0", ""]
    assert seen["sorted"] == "descending"
    assert (seen["filtered"], seen["count"], seen["drawn"]) == (["sgd"], "1 of 7 lines", ["sgd f32, laptop"])
    assert len(seen["all"]) == len(seen["curves"]) == 6
    assert (seen["column"], seen["chosen"]) == ([False, True], True)
    assert seen["hosts"].count("<b>&amp;") == 3, "a name is shown as it is"
    assert seen["buttons"] == ["Download plot as a PNG", "Zoom", "Pan", "Reset axes"], "none sends the chart anywhere"
    assert seen["legend"] > seen["curve"], "the legend is beside the curves"
    assert (seen["paper"], seen["plot"]) == ("rgb(255, 255, 255)", "#fff")
    assert seen["width"] <= 1400


def test_a_narrow_dark_page_has_all_of_it(report: Path) -> None:
    seen = look(report, width=400, scheme=DARK)
    assert len(seen["curves"]) == 6
    assert seen["legend"] < seen["curve"], "the legend is below the curves"
    assert (seen["paper"], seen["plot"]) == ("rgb(23, 24, 26)", "#17181a")
    assert seen["width"] <= 400, "nothing but the table is scrolled sideways"


@pytest.mark.parametrize("count", [1, 8, 22, 60])
def test_colours_do_not_repeat(count: int) -> None:
    found = colours(count)
    assert len(set(found)) == count
    parts = [[int(each[at : at + 2], 16) for at in (1, 3, 5)] for each in found]
    if count <= 22:
        apart = [sum(abs(a - b) for a, b in zip(x, y, strict=True)) for i, x in enumerate(parts) for y in parts[:i]]
        assert min(apart, default=99) > 20
    # The relative luminance of WCAG is far enough from white's and from the dark page's: a contrast of 2 and more.
    for each in parts:
        linear = [(v / 255 / 12.92) if v < 11 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in each]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert 1.05 / (luminance + 0.05) > 2
        assert (luminance + 0.05) / 0.06 > 2
