"""Evaluations: kept whole, made once per request, listed, changed, and told of."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from store_factories import (
    AUDIT,
    T0,
    block,
    evaluation,
    gate,
    judged,
    labelled,
    overridden,
    same_block,
)
from tidegate_analysis import Verdict
from tidegate_server.errors import RequestError
from tidegate_server.gates.errors import (
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    PreconditionError,
    RequestReusedError,
)
from tidegate_server.gates.filters import Comparison, Not, Operator
from tidegate_server.gates.model import Deployment, EvaluationState, LabelKind
from tidegate_server.gates.ports import ListQuery
from tidegate_server.store import Retention, sweep


def test_an_evaluation_comes_back_as_it_was_to_the_last_bit(run):
    deployment = Deployment(
        "checkout", "prod", "2", "1", T0 + 1 / 7, {"pod": "c"}, {"pod": "b"}, "abc", "ann", {"ci": "http://x"}
    )
    made = labelled(overridden(judged(evaluation(deployment=deployment, request_id="r", created_by="ci"))))
    run(run.store.evaluations.create(made, "f", AUDIT))
    # NaN is not equal to itself, so the texts are compared: repr tells every bit of a float.
    assert repr(run(run.store.evaluations.get(made.id))) == repr(made)


def test_what_is_not_there_is_not_found(run):
    store = run.store.evaluations
    for call in (
        store.get("nope"),
        store.modify("nope", lambda one: one, None),
        store.append_blocks("nope", "w", [], complete=True, now=T0),
        store.delete("nope", AUDIT),
    ):
        with pytest.raises(NotFoundError, match="no evaluation 'nope'"):
            run(call)
    assert run(store.blocks("nope")) == []


def test_a_request_id_makes_one_evaluation(run):
    store = run.store.evaluations
    first = evaluation(request_id="r1")
    assert run(store.create(first, "body", AUDIT)) == (first, True)
    assert run(store.create(evaluation(request_id="r1"), "body", AUDIT)) == (first, False)
    with pytest.raises(RequestReusedError, match="request_id: 'r1' was used before for another request"):
        run(store.create(evaluation(request_id="r1"), "other body", AUDIT))
    elsewhere = evaluation(environment="dev", request_id="r1")
    assert run(store.create(elsewhere, "other body", AUDIT)) == (elsewhere, True)


def test_without_keys_every_call_makes_one(run):
    store = run.store.evaluations
    assert run(store.create(evaluation(), "same", AUDIT))[1]
    assert run(store.create(evaluation(), "same", AUDIT))[1]


def test_an_ensure_key_lives_as_long_as_it_was_told(run):
    store = run.store.evaluations
    first = evaluation(ensure_key="k", expire_time=T0 + 100)
    assert run(store.create(first, "a", AUDIT)) == (first, True)
    assert run(store.create(evaluation(ensure_key="k", at=T0 + 99, expire_time=T0 + 199), "b", AUDIT)) == (
        first,
        False,
    )
    late = evaluation(ensure_key="k", at=T0 + 100, expire_time=T0 + 200)
    assert run(store.create(late, "a", AUDIT)) == (late, True)
    run(store.modify(late.id, lambda one: replace(one, state=EvaluationState.CANCELLED, version=2), AUDIT))
    after = evaluation(ensure_key="k", at=T0 + 101, expire_time=T0 + 201)
    assert run(store.create(after, "a", AUDIT)) == (after, True)


@pytest.mark.parametrize("key", ["request_id", "ensure_key"])
def test_a_repetition_is_found_without_storing_anything(run, key):
    store = run.store.evaluations
    wanted = evaluation(**{key: "k", "expire_time": T0 + 10})
    assert run(store.earlier(wanted, "f")) is None
    first = evaluation(**{key: "k", "expire_time": T0 + 10})
    run(store.create(first, "f", AUDIT))
    assert run(store.earlier(wanted, "f")) == first
    with pytest.raises(NotFoundError):
        run(store.get(wanted.id))


@pytest.mark.parametrize("key", ["request_id", "ensure_key"])
def test_callers_at_the_same_moment_get_the_same_evaluation(run, key):
    changes = {key: "k", "expire_time": T0 + 10}

    async def race():
        return await asyncio.gather(
            *(run.store.evaluations.create(evaluation(**changes), "f", AUDIT) for _ in range(8))
        )

    answers = run(race())
    assert len({made.id for made, _ in answers}) == 1
    assert sum(new for _, new in answers) == 1


def test_modify_changes_once_or_not_at_all(run):
    store = run.store.evaluations
    made, _ = run(store.create(evaluation(), "f", AUDIT))
    changed = run(store.modify(made.id, overridden, AUDIT))
    assert run(store.get(made.id)) == changed == overridden(made)
    assert run(store.modify(made.id, lambda one: one, AUDIT)) == changed

    def refuse(_):
        raise ConflictError("X", "no")

    with pytest.raises(ConflictError):
        run(store.modify(made.id, refuse, AUDIT))
    assert run(store.get(made.id)) == changed


def test_changes_at_the_same_moment_all_count(run):
    store = run.store.evaluations
    made, _ = run(store.create(evaluation(), "f", AUDIT))

    async def race():
        await asyncio.gather(
            *(store.modify(made.id, lambda one: replace(one, version=one.version + 1), None) for _ in range(10))
        )

    run(race())
    assert run(store.get(made.id)).version == made.version + 10


def _pages(run, **query):
    found, cursor = [], ""
    while True:
        page = run(run.store.evaluations.list(ListQuery(2, cursor, **query)))
        found += [one.deployment.commit for one in page.items]
        cursor = page.next_cursor
        if not cursor:
            return "".join(found)


def _is(field, value, operator=Operator.EQ):
    return Comparison(field, operator, value)


FILTERS = [
    ({}, "edcba"),
    ({"service": "checkout"}, "dcba"),
    ({"environment": "dev"}, "e"),
    ({"where": _is("verdict", Verdict.FAIL)}, "dc"),
    ({"where": _is("verdict", Verdict.FAIL, Operator.NE)}, "eba"),
    ({"where": Not(_is("verdict", Verdict.PASS))}, "edca"),
    ({"where": _is("state", EvaluationState.PENDING)}, "ea"),
    ({"where": _is("label", LabelKind.TRUE_ALARM)}, "d"),
    ({"where": _is("label", LabelKind.FALSE_ALARM, Operator.NE)}, "edcba"),
    ({"where": _is("overridden", value=True)}, "c"),
    ({"where": _is("dry_run", value=True)}, "e"),
    ({"where": _is("version", "2.0")}, ""),
    ({"where": _is("version", "v", Operator.HAS)}, "edcba"),
    ({"where": _is("create_time", T0 + 2, Operator.GE)}, "edc"),
    ({"where": _is("end_time", T0 + 61, Operator.GT)}, "dc"),
    ({"where": Not(_is("end_time", T0 + 61, Operator.GT))}, "eba"),
    ({"where": _is("actor", "b*", Operator.EQ)}, ""),
    ({"scopes": (("pay*", "*"),)}, "e"),
]


def test_lists_are_newest_first_and_filtered(run):
    def made(commit, at, **changes):
        service = changes.pop("service", "checkout")
        environment = changes.pop("environment", "prod")
        deployment = Deployment(service, environment, f"v{commit}", commit=commit, actor="bob")
        return evaluation(service, environment, at=at, deployment=deployment, **changes)

    many = [
        made("a", T0),
        judged(made("b", T0 + 1), Verdict.PASS),
        overridden(judged(made("c", T0 + 2))),
        labelled(judged(made("d", T0 + 3))),
        made("e", T0 + 3.5, service="payment", environment="dev", gate=gate("payment", "dev", dry_run=True)),
    ]
    for one in many:
        run(run.store.evaluations.create(one, "f", AUDIT))
    for query, expected in FILTERS:
        assert _pages(run, **query) == expected, query


def test_evaluations_of_the_same_moment_page_without_loss(run):
    made = [evaluation() for _ in range(7)]
    for one in made:
        run(run.store.evaluations.create(one, "f", AUDIT))
    found, cursor = [], ""
    for _ in range(4):
        page = run(run.store.evaluations.list(ListQuery(2, cursor)))
        found += [one.id for one in page.items]
        cursor = page.next_cursor
    assert cursor == ""
    assert found == sorted((one.id for one in made), reverse=True)


def test_an_unknown_field_is_refused(run):
    with pytest.raises(RequestError, match="unknown field 'owner'"):
        run(run.store.evaluations.list(ListQuery(2, where=_is("owner", "x"))))


# --- series


BLOCKS = [
    block(0),
    block(1, exposure=None, histograms=None, metrics=None, instance="", phase="pre", arm="baseline"),
    block(2, columns=1),
    block(3, values=np.empty((0, 5)), metrics=(), exposure=None),
    block(4, columns=400),
]


def test_blocks_come_back_to_the_last_bit_and_in_order(run):
    store = run.store.evaluations
    made, _ = run(store.create(evaluation(), "f", AUDIT))
    receipt = run(store.append_blocks(made.id, "w", list(enumerate(BLOCKS, 1)), complete=False, now=T0 + 0.5))
    assert (receipt.acknowledged_sequence, receipt.taken) == (5, 5)
    stored = run(store.blocks(made.id))
    assert [(one.position, one.sequence, one.writer, one.received_time) for one in stored] == [
        (k, k, "w", T0 + 0.5) for k in range(1, 6)
    ]
    assert all(same_block(one.block, BLOCKS[k]) for k, one in enumerate(stored))
    assert [one.position for one in run(store.blocks(made.id, after_position=2, limit=2))] == [3, 4]


def test_writers_count_for_themselves_retries_are_skipped_and_gaps_refused(run):
    store = run.store.evaluations
    made, _ = run(store.create(evaluation(), "f", AUDIT))

    def append(writer, *sequences, complete=False):
        blocks = [(number, block(number)) for number in sequences]
        return run(store.append_blocks(made.id, writer, blocks, complete=complete, now=T0))

    assert append("a", 1, 2).taken == 2
    assert append("b", 1).taken == 1
    again = append("a", 1, 2, 3)
    assert (again.acknowledged_sequence, again.taken) == (3, 1)
    with pytest.raises(PreconditionError, match=r"block 6 of writer 'a' came after block 4; .* go on with 4") as gap:
        append("a", 4, 6)
    assert gap.value.metadata["expected_sequence"] == "4"
    assert append("a", 0, 0).acknowledged_sequence == 5
    stored = run(store.blocks(made.id))
    assert [one.position for one in stored] == [1, 2, 3, 4, 5, 6]
    assert [(one.writer, one.sequence) for one in stored] == [
        ("a", 1),
        ("a", 2),
        ("b", 1),
        ("a", 3),
        ("a", 4),
        ("a", 5),
    ]


def test_a_number_that_was_taken_with_other_points_is_refused(run):
    """A writer that began again from 1 would otherwise lose its points without a word."""
    store = run.store.evaluations
    made, _ = run(store.create(evaluation(), "f", AUDIT))

    def append(*blocks):
        return run(store.append_blocks(made.id, "a", blocks, complete=False, now=T0))

    append((1, block(1)), (2, block(2)))
    for other in (block(7), block(2, instance="pod-2")):
        with pytest.raises(AlreadyExistsError, match=r"block 2 .* other points; .* go on with 3") as reused:
            append((2, other), (3, block(3)))
        assert reused.value.reason == "SEQUENCE_REUSED"
    assert len(run(store.blocks(made.id))) == 2
    assert append((2, block(2)), (3, block(3))).taken == 1


def test_complete_is_remembered_and_a_finished_evaluation_takes_only_retries(run):
    store = run.store.evaluations
    made, _ = run(store.create(evaluation(), "f", AUDIT))
    run(store.append_blocks(made.id, "a", [(1, block(1))], complete=True, now=T0))
    assert run(store.get(made.id)).series_complete
    run(store.modify(made.id, judged, None))
    assert run(store.append_blocks(made.id, "a", [(1, block(1))], complete=True, now=T0)).taken == 0
    with pytest.raises(PreconditionError, match="is over; it takes no more series"):
        run(store.append_blocks(made.id, "a", [(2, block(2))], complete=False, now=T0))
    with pytest.raises(PreconditionError, match="is over"):
        run(store.append_blocks(made.id, "b", [(1, block(2))], complete=False, now=T0))


def test_writers_at_the_same_moment_lose_nothing(run):
    store = run.store.evaluations
    made, _ = run(store.create(evaluation(), "f", AUDIT))

    async def race():
        await asyncio.gather(
            *(
                store.append_blocks(made.id, f"w{k}", [(1, block(k)), (2, block(k))], complete=False, now=T0)
                for k in range(8)
            )
        )

    run(race())
    assert [one.position for one in run(store.blocks(made.id))] == list(range(1, 17))


# --- the feed


def test_a_watcher_is_woken_by_a_change_and_not_before(run):
    store, feed = run.store.evaluations, run.store.feed
    made, _ = run(store.create(evaluation(), "f", AUDIT))

    async def watch():
        assert not await feed.wait(made.id, made.version, 0.05)
        waiting = asyncio.create_task(feed.wait(made.id, made.version, 30))
        await asyncio.sleep(0)
        await store.modify(made.id, overridden, None)
        assert await waiting
        assert await feed.wait(made.id, made.version, 30), "a change of before is told at once"

    run(watch())


def test_a_watcher_is_woken_by_another_replica(run, open_store):
    other = open_store(poll_seconds=0.02)
    made, _ = run(run.store.evaluations.create(evaluation(), "f", AUDIT))

    async def watch():
        waiting = asyncio.create_task(other.store.feed.wait(made.id, made.version, 30))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        return waiting

    waiting = other(watch())
    run(run.store.evaluations.modify(made.id, overridden, None))

    async def finish():
        return await waiting

    assert other(finish())


def test_a_watcher_of_a_deleted_evaluation_is_woken(run):
    made, _ = run(run.store.evaluations.create(evaluation(), "f", AUDIT))
    run(run.store.evaluations.delete(made.id, AUDIT))
    assert run(run.store.feed.wait(made.id, made.version, 30))


# --- retention


def test_what_is_old_goes_and_what_is_labelled_or_running_stays(run):
    store = run.store.evaluations
    old = [judged(evaluation(at=T0 + k)) for k in range(5)]
    kept = [labelled(judged(evaluation())), evaluation(), judged(evaluation(at=T0 + 9e6))]
    for one in old + kept:
        run(store.create(one, "f", AUDIT))
    for one in (old[0], kept[1]):
        if not one.finished:
            run(store.append_blocks(one.id, "w", [(1, block())], complete=False, now=T0))
    assert run(store.delete_before(T0 + 63.5, 2)) == 2
    assert run(sweep(run.store, T0 + 8e6)) == 3
    left = run(store.list(ListQuery(50))).items
    assert {one.id for one in left} == {one.id for one in kept}
    assert len(run(store.blocks(kept[1].id))) == 1


def test_an_evaluation_is_deleted_with_its_series(run):
    store = run.store.evaluations
    made, _ = run(store.create(evaluation(), "f", AUDIT))
    run(store.append_blocks(made.id, "w", [(1, block())], complete=False, now=T0))
    run(store.delete(made.id, AUDIT))
    assert run(store.blocks(made.id)) == []


@pytest.mark.parametrize("name", ["evaluations", "monitor_states"])
def test_retention_of_less_than_a_day_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}: must be at least one day"):
        Retention(**{name: 3600.0})
    with pytest.raises(ValueError, match=name):
        Retention(**{name: float("nan")})


def test_callers_that_give_up_leave_a_store_that_works(run):
    """What was acknowledged is there; a write that was given up is there in whole or not at all."""
    store = run.store.evaluations
    acknowledged = []

    async def one():
        made, _ = await store.create(evaluation(), "f", AUDIT)
        acknowledged.append(made.id)

    async def go():
        rng = np.random.default_rng(1)
        for _ in range(5):
            tasks = [asyncio.create_task(one()) for _ in range(8)]
            await asyncio.sleep(rng.uniform(0, 0.04))
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await one()
        page = await run.store.evaluations.list(ListQuery(100))
        assert {made.id for made in page.items} >= set(acknowledged)
        assert run.store.database.engine.pool.checkedout() == 0

    run(go())
    assert len(acknowledged) >= 21
