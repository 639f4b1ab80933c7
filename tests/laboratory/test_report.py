"""A page is made from a results file alone, and has the data that is in it."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from etcray_bench.errors import LaboratoryError
from etcray_bench.experiments.registry import experiments
from etcray_bench.report.page import report_page
from etcray_bench.report.percentiles import curve, value_at
from etcray_bench.report.plots import KINDS
from etcray_bench.results.reading import read_source
from etcray_bench.results.records import Variables
from tests.laboratory.synthetic import killed, point, sample, write_run

SVG = "{http://www.w3.org/2000/svg}"


class Page:
    """What a reader, or a program, finds on it."""

    def __init__(self, html: str) -> None:
        self.html = html
        self.titles = re.findall(r"<h3>(.*?)</h3>", html)
        self.plots = [
            ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
        ]
        """Each is XML that can be parsed."""

    def plot(self, title: str) -> ElementTree.Element:
        (found,) = [p for p in self.plots if title in p.attrib["aria-label"]]
        return found


def by_id(plot: ElementTree.Element, start: str) -> dict[str, ElementTree.Element]:
    return {
        element.attrib["id"]: element
        for element in plot.iter()
        if element.attrib.get("id", "").startswith(start)
    }


def heights(line: ElementTree.Element) -> list[float]:
    """The vertical places of a line's points; larger is lower on the page."""
    path = next(line.iter(f"{SVG}path"))
    return [float(place) for place in re.findall(r"[ML] [\d.]+ ([\d.]+)", path.attrib["d"])]


def texts(plot: ElementTree.Element) -> list[str]:
    return ["".join(element.itertext()).strip() for element in plot.iter(f"{SVG}text")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.duckdb"


def page_of(path: Path) -> Page:
    return Page(report_page(read_source(str(path)), path.name))


def test_throughput_is_drawn_with_the_ideal_line_and_its_title_says_what_was_found(path: Path) -> None:
    rates = {1: 1000.0, 2: 2000.0, 4: 3000.0}
    points: list[Variables] = [{"gateways": count, "workload": "put", "clients": 64} for count in rates]
    write_run(
        path,
        "gateways",
        points,
        lambda each: [sample(rates[int(each["gateways"])] * x) for x in (0.9, 1, 1.1)],
    )
    page = page_of(path)
    plot = page.plot("From gateways 1 to 4: 3.00 times the requests per second; ideal is 4.00")
    measured, ideal = heights(by_id(plot, "line-0")["line-0"]), heights(by_id(plot, "ideal-0")["ideal-0"])
    assert len(measured) == len(ideal) == 3
    # 1000, 2000, 3000 and 1000, 2000, 4000 on one axis.
    assert measured[0] == pytest.approx(ideal[0], abs=0.1)
    unit = measured[0] - measured[1]
    assert measured[0] - measured[2] == pytest.approx(2 * unit, rel=0.01)
    assert ideal[0] - ideal[2] == pytest.approx(3 * unit, rel=0.01)
    assert {"1", "2", "4", "gateways", "requests per second"} <= set(texts(plot))


def test_latency_by_throughput_names_the_load_at_its_points(path: Path) -> None:
    points: list[Variables] = [{"workload": w, "clients": c} for w in ("put", "range") for c in (1, 16, 256)]
    write_run(
        path, "clients", points, lambda each: [sample(100.0 * int(each["clients"]), int(each["clients"]) / 4)]
    )
    plot = page_of(path).plot("25,600 requests per second with 256 clients, p50 64.0 ms")
    for name in ("p50-0", "p50-1", "p99-0", "p99-1"):
        assert len(heights(by_id(plot, name)[name])) == 3
    assert [text for text in texts(plot) if text in ("1", "16", "256")].count("256") >= 2
    assert {"put p50", "range p99"} <= set(texts(plot))


def test_percentiles_are_those_of_the_histograms(path: Path) -> None:
    slow, quick = [sample(100, 4.0)], [sample(100, 2.0)]
    points = curve([*slow, *quick, *quick])
    assert value_at(points, 0.5) == pytest.approx(2.0, rel=0.01)
    assert value_at(points, 0.9) == pytest.approx(4.0, rel=0.01)
    assert value_at(points, 0.999) == pytest.approx(40.0, rel=0.01)
    shares = [share for share, _ in points]
    assert shares == sorted(shares)
    assert 0.999 <= shares[-1] < 0.9999, "3,000 requests say nothing about one in ten thousand"

    variables: list[Variables] = [{"durability": name, "clients": 64} for name in ("synced", "written")]
    write_run(path, "durability", variables, lambda each: slow if each["durability"] == "synced" else quick)
    plot = page_of(path).plot("99 of 100 within")
    assert "(written)" in plot.attrib["aria-label"]
    assert {"50 %", "90 %", "99 %", "99.9 %"} <= set(texts(plot))
    tops = [min(heights(by_id(plot, name)[name])) for name in ("line-0", "line-1")]
    assert tops[0] < tops[1], "the slower line does not go higher"


def test_a_timeline_marks_the_fault_and_the_pauses_are_ranked(path: Path) -> None:
    pauses = {"etcray": [100.0, 200.0, 300.0], "etcd": [900.0, 1000.0, 4000.0]}
    points: list[Variables] = [{"system": name, "writers": 8} for name in pauses]
    write_run(path, "failover", points, lambda each: [killed(ms) for ms in pauses[str(each["system"])]])
    page = page_of(path)
    title = "SIGKILL of the leader&#x27;s process: etcray pauses for 200 ms, etcd pauses for 1,000 ms"
    assert title in page.titles
    timeline = page.plot("SIGKILL of")
    assert by_id(timeline, "event-SIGKILL")
    assert "SIGKILL" in texts(timeline)
    assert {"line-0", "line-1"} <= by_id(timeline, "line-").keys()
    distribution = page.plot("etcd 1,000 (worst of 3: 4,000)")
    assert {"line-0", "line-1"} <= by_id(distribution, "line-").keys()


def test_values_that_are_compared_stand_side_by_side(path: Path) -> None:
    points: list[Variables] = [
        {"transport": name, "workload": "put", "clients": c} for c in (1, 64) for name in ("ray", "direct")
    ]
    write_run(
        path, "transport", points, lambda each: [sample(1000.0 if each["transport"] == "ray" else 1800.0)]
    )
    plot = page_of(path).plot("direct: 1.80 times the requests per second of ray")
    assert by_id(plot, "bar-").keys() == {"bar-0-1", "bar-0-64", "bar-1-1", "bar-1-64"}
    assert texts(plot).count("1,800") == 2


def test_every_figure_is_in_the_table_and_every_failure_is_said(path: Path) -> None:
    from etcray_bench.results.store import ResultsWriter
    from tests.laboratory.synthetic import ENVIRONMENT, plan

    writer = ResultsWriter.begin(path, plan("members", {"members": (1, 3)}), ENVIRONMENT)
    writer.add_points(
        [
            point({"members": 1, "clients": 64}, [sample(1234.0), sample(1300.0), sample(1400.0)]),
            point({"members": 3, "clients": 64}, [], "LoadError: <lost> & gone"),
        ]
    )
    html = page_of(path).html
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)
    assert {"1,300", "1,234", "1,400", "2.00", "20.0"} <= set(cells)
    assert "LoadError: &lt;lost&gt; &amp; gone" in html
    for fact in ("A Processor", "Linux 6.1", "0123456789ab", "etcd 3.5.1", "not finished"):
        assert fact in html


class Outside(HTMLParser):
    """Everything that would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data") and not (value or "").startswith("#"):
                self.found.append(f"{tag} {name}={value}")
        if tag in ("script", "link", "iframe"):
            self.found.append(tag)


def test_a_page_needs_nothing_from_outside_and_follows_light_and_dark(path: Path) -> None:
    write_run(
        path, "clients", [{"workload": "put", "clients": c} for c in (1, 8)], lambda each: [sample(100)]
    )
    html = page_of(path).html
    outside = Outside()
    outside.feed(html)
    assert outside.found == []
    assert "url(http" not in html
    assert "prefers-color-scheme: dark" in html
    assert "var(--series-0)" in html
    drawn = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    own_colours = set(re.findall(r"#[0-9a-f]{6}\b", drawn)) - {"#ffffff"}
    assert own_colours == set(), "a colour that does not follow the page"


def test_plots_without_matplotlib_say_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(path, "members", [{"members": 1, "clients": 1}], lambda each: [sample(100)])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(LaboratoryError, match=re.escape("pip install 'etcray[lab]'")):
        page_of(path)


def test_an_experiment_that_this_version_does_not_know_is_shown_all_the_same(path: Path) -> None:
    write_run(path, "of-old", [{"colour": "red"}], lambda each: [sample(4321.0)])
    assert "4,321" in page_of(path).html


def kinds() -> Iterator[str]:
    for experiment in experiments().values():
        for plot in experiment.plots:
            yield plot.kind


def test_every_plot_is_of_a_kind_that_can_be_drawn_and_of_variables_that_exist() -> None:
    assert set(kinds()) <= KINDS.keys()
    for experiment in experiments().values():
        names = {variable.name for variable in experiment.variables}
        for plot in experiment.plots:
            assert {plot.x, *plot.lines} - {""} <= names, experiment.name
