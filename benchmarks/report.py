"""Tables, targets and what a result was made on: shared by every benchmark."""

from __future__ import annotations

import json
import math
import os
import platform
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any


@dataclass
class Table:
    """One table of a report; cells are strings or numbers."""

    title: str
    columns: list[str]
    rows: list[list[Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: Any) -> None:
        """Append one row."""
        if len(cells) != len(self.columns):
            raise ValueError(f"cells: {len(cells)} for {len(self.columns)} columns of {self.title!r}")
        self.rows.append(list(cells))

    def as_dict(self) -> dict[str, Any]:
        """Return the table as JSON holds it."""
        return {"title": self.title, "columns": self.columns, "rows": self.rows, "notes": self.notes}


def cell(value: Any) -> str:
    """Return a cell as text: floats with three figures."""
    if isinstance(value, float):
        if math.isnan(value):
            return "-"
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def markdown(table: dict[str, Any]) -> str:
    """Return one table as Markdown, its columns aligned so that it also reads well in a terminal."""
    header = [cell(c) for c in table["columns"]]
    body = [[cell(c).replace("|", "\\|") for c in row] for row in table["rows"]]
    width = [max(len(r[k]) for r in [header, *body]) for k in range(len(header))]

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, width, strict=True)) + " |"

    out = [f"### {table['title']}", "", line(header), "|" + "|".join("-" * (w + 2) for w in width) + "|"]
    out += [line(row) for row in body]
    notes = table.get("notes") or []
    if notes:
        out += ["", *[f"- {note}" for note in notes]]
    return "\n".join(out) + "\n"


def met(value: float, target: float, *, at_most: bool = True) -> str:
    """Return ``"met"`` or ``"NOT MET"``; a value that is not a number is not met."""
    ok = value <= target if at_most else value >= target
    return "met" if ok else "NOT MET"


def percent(share: float, digits: int = 1) -> str:
    """Return a share as per cent, a dash where there is none."""
    return "-" if math.isnan(share) else f"{100 * share:.{digits}f}"


def standard_error(p: float, n: int) -> float:
    """Return the standard error of a share ``p`` seen in ``n`` independent trials."""
    return math.sqrt(max(p * (1 - p), 0.0) / n) if n > 0 else math.nan


def size_limit(alpha: float, n: int) -> float:
    """Return the largest share that sampling explains when the true rate is ``alpha``: three standard
    errors."""
    return alpha + 3.0 * standard_error(alpha, n)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for text in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if text.startswith("model name"):
                return text.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def environment(seed: int | None = None) -> dict[str, Any]:
    """Return what a result was made on: processor, cores, versions, seed."""
    versions = {}
    for name in ("numpy", "scipy", "pandas", "grpcio", "protobuf", "tidegate"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "seed": seed,
    }


def environment_line(env: dict[str, Any]) -> str:
    """Return the environment as one line of text."""
    versions = ", ".join(f"{k} {v}" for k, v in env["versions"].items())
    seed = "" if env.get("seed") is None else f"; seed {env['seed']}"
    where = f"{env['processor']}, {env['cores']} cores, {env['system']}"
    return f"{where}; Python {env['python']}, {versions}{seed}"


def write(out_dir: Path, name: str, result: dict[str, Any]) -> str:
    """Write ``name.json`` and ``name.md`` and return the Markdown."""
    out_dir.mkdir(parents=True, exist_ok=True)
    env = result.setdefault("environment", environment(result.get("seed")))
    text = [f"## {name}", "", result.get("summary", "")] if result.get("summary") else [f"## {name}"]
    took = f"; {result['seconds']:.0f} s" if "seconds" in result else ""
    took += f", {result['cpu_seconds']:.0f} s of processor" if "cpu_seconds" in result else ""
    text += ["", environment_line(env) + ("; quick run" if result.get("quick") else "") + took + ".", ""]
    text += [markdown(table) for table in result.get("tables", [])]
    if result.get("markdown"):
        text.append(result["markdown"])
    rendered = "\n".join(text)
    (out_dir / f"{name}.md").write_text(rendered, encoding="utf-8")
    plain = json.dumps(result, indent=1, sort_keys=True, default=_plain)
    (out_dir / f"{name}.json").write_text(plain + "\n", encoding="utf-8")
    return rendered


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
