"""Record series of the demo's shop: both rollouts, for longer than the demo would watch them."""

from __future__ import annotations

import sys
from pathlib import Path

from tidegate_server.demo import processes, recording
from tidegate_server.demo.rollout import ROLLOUTS, Plan
from tidegate_server.demo.scrape import Column, Scraper

BEFORE_SECONDS = 20.0
AFTER_SECONDS = 40.0


def main(folder: Path) -> None:
    plan = Plan()
    folder.mkdir(parents=True, exist_ok=True)
    with processes.Children() as children, Scraper(plan.step) as scraper:
        versions = ["v1", "v1", *(rollout.version for rollout in ROLLOUTS)]
        shops = [children.start("tidegate_server.demo.shop", version) for version in versions]
        users = children.start("tidegate_server.demo.traffic", str(plan.rate))
        baseline, twin, *candidates = [int(children.first_line(shop, "the shop")) for shop in shops]

        def watch(canary: int, seconds: float) -> list[Column]:
            processes.tell(users, f"{baseline} {canary}")
            scraper.aim(baseline, canary)
            return [scraper.wait() for _ in range(round(seconds / plan.step))]

        watch(twin, plan.settle)
        for rollout, port in zip(ROLLOUTS, candidates, strict=True):
            before = [("pre", column) for column in watch(twin, plan.settle + BEFORE_SECONDS)]
            after = [("post", column) for column in watch(port, AFTER_SECONDS)]
            # Moving back to the twin leaves slow requests unanswered for a moment, as any move does.
            recording.write(folder / f"{rollout.key}.csv", before[round(plan.settle / plan.step) :] + after)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
