"""The examples in the public docstrings run as they are written."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = {"compare": "compare", "before_after": "before_after", "judgement": "judge", "stream": "open_stream"}


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_public_function_run(module: str) -> None:
    loaded = importlib.import_module(f"tidegate_analysis.{module}")
    function = getattr(loaded, MODULES[module])
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    tests = finder.find(function, MODULES[module], globs={})
    assert sum(len(test.examples) for test in tests) >= 5
    report: list[str] = []
    for test in tests:
        runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)
