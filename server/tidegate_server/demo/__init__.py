"""The demo: a small real service in two versions, real traffic, and Tidegate judging its rollouts.

``shop`` is the service (a process per version), ``traffic`` sends requests to two of them, ``scrape`` reads
their ``/metrics`` pages, ``processes`` starts and ends everything, ``rollout`` feeds Tidegate and follows
the verdict, ``recording`` keeps and loads what was streamed.
"""
