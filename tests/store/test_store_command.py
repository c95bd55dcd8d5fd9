"""``tidegate store``: what an operator does to the store itself."""

from __future__ import annotations

import asyncio
import io

import pytest
from store_factories import AUDIT, T0, block, evaluation, judged, labelled
from tidegate_server import cli
from tidegate_server.cli.exits import Exit
from tidegate_server.gates.ports import ListQuery
from tidegate_server.store import Store, export


@pytest.fixture
def file(tmp_path):
    return tmp_path / "tidegate.db"


def _fill(file, *many):
    async def go():
        store = Store(str(file))
        await store.migrate()
        for one in many:
            await store.evaluations.create(one, "f", AUDIT)
        await store.close()

    asyncio.run(go())


def _left(file):
    async def go():
        store = Store(str(file))
        found = await store.evaluations.list(ListQuery(50))
        audit = await store.audit.list(ListQuery(50))
        await store.close()
        return {one.id for one in found.items}, [record.action for record in audit.items]

    return asyncio.run(go())


def _run(file, *arguments):
    return cli.main(["store", *arguments, "--store-url", str(file)])


def test_migrate_makes_the_store(file, capsys):
    assert _run(file, "migrate") == 0
    assert file.exists()
    assert "tidegate.db has the schema of this version" in capsys.readouterr().out


def test_export_writes_what_read_gives_back(file, tmp_path, capsys):
    made = evaluation()

    async def go():
        store = Store(str(file))
        await store.migrate()
        await store.evaluations.create(made, "f", AUDIT)
        await store.evaluations.append_blocks(made.id, "w", [(1, block())], complete=True, now=T0)
        stored = await store.evaluations.modify(made.id, judged, None)
        await store.close()
        return stored

    stored = asyncio.run(go())
    assert _run(file, "export", f"evaluations/{made.id}", str(tmp_path / "out")) == 0
    assert str(tmp_path / "out" / "series.parquet") in capsys.readouterr().out
    archive = export.read(tmp_path / "out")
    assert repr(archive.evaluation) == repr(stored)
    assert len(archive.blocks) == 1


def test_what_is_not_there_is_told(file, tmp_path, capsys):
    _fill(file)
    assert _run(file, "export", "nope", str(tmp_path / "out")) == Exit.USAGE
    assert "there is no evaluation 'nope'" in capsys.readouterr().err
    assert _run(file, "delete", "nope", "--yes") == Exit.USAGE
    assert not (tmp_path / "out").exists()


def test_delete_asks_and_is_remembered(file, capsys, monkeypatch):
    one, other = judged(evaluation()), judged(evaluation())
    _fill(file, one, other)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert _run(file, "delete", one.id) == Exit.USAGE
    assert "There is nobody to ask; say --yes" in capsys.readouterr().err
    assert _left(file)[0] == {one.id, other.id}
    assert _run(file, "delete", one.id, "--yes") == 0
    assert "deleted 1" in capsys.readouterr().out
    left, actions = _left(file)
    assert left == {other.id}
    assert actions[0] == "evaluation.delete"


def test_sweep_deletes_by_age(file, capsys):
    old, kept = judged(evaluation(at=1.6e9)), labelled(judged(evaluation(at=1.6e9)))
    running = evaluation()
    _fill(file, old, kept, running)
    assert _run(file, "sweep", "--days", "0.5") == Exit.USAGE
    assert "--days: must be at least 1, not 0.5" in capsys.readouterr().err
    assert _run(file, "sweep", "--days", "nan") == Exit.USAGE
    assert _run(file, "sweep") == 0
    assert "deleted 1" in capsys.readouterr().out
    assert _left(file)[0] == {kept.id, running.id}


def test_a_file_that_is_no_store_is_told(file, capsys):
    file.write_bytes(b"this is no database" * 500)
    assert _run(file, "sweep") == Exit.COULD_NOT_LOOK
    assert "is no SQLite database" in capsys.readouterr().err
