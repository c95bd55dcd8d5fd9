"""Every method that a finding can name has its page, and the pages lead somewhere."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
import tidegate_analysis

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "methods").glob("*.md"))
SOURCE = "".join(path.read_text() for path in Path(tidegate_analysis.__file__).parent.rglob("*.py"))
IDS = sorted(set(re.findall(r'"([a-z]+(?:-[a-z]+)*\.v\d+)"', SOURCE)))


def test_every_method_id_is_in_the_index() -> None:
    index = (ROOT / "docs" / "methods" / "README.md").read_text()
    listed = re.findall(r"`([a-z*-]+\.v\d+)`", index)
    missing = [name for name in IDS if not any(fnmatch(name, pattern) for pattern in listed)]
    # What a stretch without a single point is told under, and what difference in differences replaces.
    assert set(missing) <= {"before-after.v1"}
    stale = [
        pattern
        for pattern in listed
        if not pattern.startswith("difference") and not any(fnmatch(n, pattern) for n in IDS)
    ]
    assert not stale
    assert len(IDS) > 20


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if target.startswith("http") or target.endswith("benchmarks/results/accuracy.md"):
            continue  # the tables are written by make bench-accuracy
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_pages_name_code_that_exists(page: Path) -> None:
    for name in re.findall(r"`((?:kernels/|watches/)?[a-z_]+\.py)`", page.read_text()):
        folders = (Path(tidegate_analysis.__file__).parent, Path(__file__).parent)
        assert any((folder / name).exists() for folder in folders), name
