"""The report is one file that opens offline, in a real browser, on a phone and in the dark."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from measattn import plot
from paper_repro.claim import claim
from paper_repro.evidence import Verdict
from paper_repro.numbers import number, seconds
from paper_repro.runner import run

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
     if (path := shutil.which(name))), None
)  # fmt: skip
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)"
)

HOSTILE = "<script>alert(1)</script> & \"quotes\" 'too'"


def full(bench):
    bench.check("checked", True, "all of them")
    bench.at_most("error of $x^2$", 1e-16, 1e-12)
    bench.close(HOSTILE, 1.0, 1.0)
    bench.control("broken", 0.5, 1e-12, HOSTILE, predicted=0.5)
    bench.counterexample("witness", 2.0, 1.0, "by construction")
    bench.table(HOSTILE, ["name", HOSTILE], [[HOSTILE, 1e-7], ["$x$", 12345]], HOSTILE)
    bench.figure(plot.curve([1, 10, 100], [1, 0.3, 0.1]), "A rate in $n$", "falls like 1/root n")
    bench.figure(plot.weights([[0.2, 0.8], [0.5, 0.5]]), "A kernel", HOSTILE)
    bench.note(HOSTILE)


def fails(bench):
    raise RuntimeError(HOSTILE)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    text = {"statement": "Text with $a<b$. " + HOSTILE, "source": HOSTILE}
    claims = [
        claim(
            id="full", group="A", title=HOSTILE, formulas=[r"\frac{a}{b}", r"x<y"], **text,
            hypotheses={"checked": "$g>0$", "assumed": HOSTILE},
            expected=Verdict.NEEDS_HYPOTHESES,
        )(full),
        claim(id="error", group="D", title="t", formulas=["x"], **text, hypotheses={})(fails),
        claim(id="absent", group="D", title="t", formulas=["x"], **text, hypotheses={})(full),
    ]  # fmt: skip
    with open(os.devnull, "w") as file:
        assert run(claims, ["full", "error"], out=folder, console=Console(file=file)) == 1
    return folder / "report.html"


def chromium(tmp_path, report, *flags):
    log = tmp_path / "net.json"
    command = [
        CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}",
        "--enable-logging=stderr", "--v=0", *flags, report.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done, log


def requested(log):
    text = log.read_text()
    try:
        events = json.loads(text)["events"]
    except json.JSONDecodeError:  # Chromium does not always close the list
        events = json.loads(text.rstrip().rstrip(",") + "]}")["events"]
    urls = {e.get("params", {}).get("url", "") for e in events}
    return {url for url in urls if url.startswith(("http", "ws", "ftp"))}


@needs_chromium
def test_chromium_shows_every_formula_and_figure_without_a_complaint_or_a_request(tmp_path, report):
    done, log = chromium(tmp_path, report, "--dump-dom")
    assert "CONSOLE" not in done.stderr, done.stderr[-2000:]
    # Chromium itself may look for updates and its own services; the page may ask for nothing
    assert not {u for u in requested(log) if "google" not in u and "gvt1" not in u}
    dom = done.stdout
    for label in (r"\frac{a}{b}", "x&lt;y", "a&lt;b", "x^2", "g&gt;0"):
        assert f'aria-label="{label}"' in dom
    assert dom.count("<figure") == 2
    assert (
        dom.count('class="display formula"') == 3
    )  # those of the statement that was not run are left out
    assert "<script" not in dom


@needs_chromium
def test_a_page_that_complains_and_asks_the_network_would_be_found_out(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.error('oh')</script>")
    done, log = chromium(tmp_path, page, "--dump-dom")
    assert "CONSOLE" in done.stderr
    assert "http://127.0.0.1:9/x.png" in requested(log)


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_no_wider_than_the_screen(tmp_path, report, width):
    # the window cannot be made as narrow as a phone, a frame can
    probe = tmp_path / "probe.html"
    probe.write_text(
        f"<iframe id=f style='width:{width}px;height:900px;border:0'></iframe>"
        "<p id=out>waiting</p><script>f.onload=()=>{const d=f.contentDocument.documentElement;"
        "const wide=[...d.querySelectorAll('article > *')].filter(e=>e.getBoundingClientRect()"
        f".right>{width}+1).length;"
        "out.textContent=`scroll ${d.scrollWidth} wide ${wide}`};f.srcdoc="
        + json.dumps(report.read_text()).replace("</", "<\\/")
        + "</script>"
    )
    done, _ = chromium(tmp_path, probe, "--dump-dom", "--virtual-time-budget=5000")
    found = re.search(r"scroll (\d+) wide (\d+)", done.stdout)
    assert found, done.stdout[-500:]
    assert int(found.group(1)) <= width
    assert int(found.group(2)) == 0


@needs_chromium
def test_ink_follows_the_colour_scheme(tmp_path, report):
    shots = {}
    for scheme, flag in (("light", "--blink-settings=preferredColorScheme=1"),
                         ("dark", "--blink-settings=preferredColorScheme=0")):  # fmt: skip
        shots[scheme] = tmp_path / f"{scheme}.png"
        folder = tmp_path / scheme
        folder.mkdir()
        chromium(folder, report, f"--screenshot={shots[scheme]}", "--window-size=1000,800", flag)
    from matplotlib.image import imread

    light, dark = (imread(shots[s])[..., :3].mean() for s in ("light", "dark"))
    assert light > 0.8
    assert dark < 0.3


@needs_chromium
def test_the_page_prints(tmp_path, report):
    pdf = tmp_path / "report.pdf"
    chromium(tmp_path, report, f"--print-to-pdf={pdf}", "--no-pdf-header-footer")
    assert pdf.read_bytes().startswith(b"%PDF")


def test_the_page_holds_everything_it_shows(report):
    text = report.read_text()
    assert not re.search(r'(src|href)="(?!\s*(#|data:))', text)
    assert "url(http" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    ids = re.findall(r'<symbol id="([^"]+)"', text)
    used = set(re.findall(r'<use href="#(STIX[^"]+)"', text))
    assert used
    assert used <= set(ids)
    assert len(ids) == len(set(ids))


def test_what_claims_say_is_escaped(report):
    text = report.read_text()
    assert "<script" not in text
    assert text.count(html.escape(HOSTILE).replace("&#x27;", "&#39;")) + text.count(
        html.escape(HOSTILE)
    ) >= 10  # fmt: skip


def test_figures_have_a_text_alternative_and_follow_the_ink(report):
    text = report.read_text()
    assert 'aria-label="falls like 1/root n"' in text
    assert plot.INK not in text
    assert plot.PAPER not in text
    assert text.count("currentColor") > 20
    ids = re.findall(r'\bid="(f[0-9a-f]{8}-[^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_an_error_is_shown_with_its_traceback_and_what_is_missing_as_not_run(report):
    text = report.read_text()
    assert "RuntimeError" in text
    assert "not run" in text
    assert "not-run-list" in text
    assert "counterexample, must fail" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1e-12, "10⁻¹²"), (2.5e-16, "2.50·10⁻¹⁶"), (-0.25, "−0.25"), (12345.0, "12,345"),
     (float("inf"), "∞"), (float("nan"), "-"), (1e20, "10²⁰")],
)  # fmt: skip
def test_numbers_are_written_for_people(value, text):
    assert number(value) == text


def test_durations_are_written_for_people():
    assert [seconds(1.25), seconds(150.0)] == ["1.2 s", "2 min 30 s"]


def test_the_page_is_small_enough_to_mail(report: Path):
    assert report.stat().st_size < 1_000_000
