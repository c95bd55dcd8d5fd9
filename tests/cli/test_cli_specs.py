"""Metric specs from options and files."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from tidegate_server.cli.analyze import parse_time
from tidegate_server.cli.specs import build_specs, parse_margin

NAMES = ("latency", "errors", "a=b")


def test_options_for_all_and_for_one() -> None:
    specs = build_specs(
        NAMES,
        margins=["errors=0.5%", "0.2", "a=b=3"],
        directions=["latency=up-is-worse"],
        kinds=["errors=ratio"],
    )
    assert [spec.name for spec in specs] == list(NAMES)
    assert [spec.margin for spec in specs] == [0.2, 0.005, 3.0]
    assert [spec.direction for spec in specs] == ["up_is_worse", "auto", "auto"]
    assert specs[1].kind == "ratio"


@pytest.mark.parametrize(
    "text",
    [
        "metrics:\n  - name: latency\n    margin: 10%\n    alphaPass: 0.1\n  - name: errors\n    kind: ratio",
        "metrics:\n  latency:\n    margin: 0.1\n    alpha_pass: 0.1\n  errors:\n    kind: ratio\n",
        ('{"metrics": [{"name": "latency", "margin": 0.1, "alphaPass": 0.1}, {"name": "errors", "kind": "ratio"}]}'),
    ],
)
def test_spec_file_and_options_over_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    specs = build_specs(NAMES, spec_file=str(path), margins=["errors=0.02"])
    assert (specs[0].margin, specs[0].alpha_pass, specs[0].kind) == (0.1, 0.1, "auto")
    assert (specs[1].margin, specs[1].kind) == (0.02, "ratio")
    assert specs[2].margin is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metrics: [{name: latency, margn: 1}]", "metrics[0].margn: no such field; there are kind"),
        ("metrics: [{margin: 1}]", "metrics[0].name: must be the name"),
        ("metrics: [{name: latency}, {name: latency}]", "metrics[1].name: 'latency' is there twice"),
        ("metrics: {latency: {margin: wide}}", "metrics.latency.margin: 'wide' is not a margin"),
        ("metrics: {latency: {margin: true}}", "metrics.latency.margin: must be a number"),
        ("metrics: {latency: {kind: 3}}", "metrics.latency.kind: must be text"),
        ("metrics: {latency: 3}", "metrics.latency: must hold fields"),
        ("metrics: {nothing: {margin: 1}}", "there is no metric 'nothing'; there are latency, errors"),
        ("metrics: {latency: {margin: -1}}", "metric latency: margin: must be a finite number above 0"),
        ("metrics: 3", "metrics: must be a list"),
        ("specs: []", "must hold one key, metrics"),
        ("metrics: [", "line 1, column 11"),
        ("metrics:\n  - name: latency\n    name: latency\n", "duplicate key"),
    ],
)
def test_wrong_spec_files_name_the_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(click.UsageError) as caught:
        build_specs(NAMES, spec_file=str(path))
    assert said in caught.value.message


def test_missing_and_binary_spec_files(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="No such file"):
        build_specs(NAMES, spec_file=str(tmp_path / "none.yaml"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(click.UsageError, match="not UTF-8"):
        build_specs(NAMES, spec_file=str(tmp_path / "binary"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"margins": ["wide"]}, "--margin: 'wide' is not a margin; write 0.1 or 10%"),
        ({"margins": ["none=0.1"]}, "--margin none=0.1: there is no metric 'none'"),
        ({"margins": ["0"]}, "margin: must be a finite number above 0"),
        ({"margins": ["nan"]}, "margin: must be a finite number above 0"),
        ({"directions": ["sideways"]}, "direction: 'sideways' is none of"),
        ({"kinds": ["errors=tree"]}, "kind: 'tree' is none of"),
    ],
)
def test_wrong_options(options: dict[str, list[str]], said: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        build_specs(NAMES, **options)  # type: ignore[arg-type]
    assert said in caught.value.message


def test_margins_and_times() -> None:
    assert parse_margin(" 12.5% ") == pytest.approx(0.125)
    assert parse_time("1770000000.5") == 1770000000.5
    assert parse_time("2026-02-02T02:40:00Z") == parse_time("2026-02-02T02:40:00") == 1770000000.0
    assert parse_time("2026-02-02T03:40:00+01:00") == 1770000000.0
    for wrong in ("yesterday", "2026-02-30", ""):
        with pytest.raises(click.UsageError, match="is no time"):
            parse_time(wrong)
