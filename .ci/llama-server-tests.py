"""Runs llama.cpp's server tests, in their folder, and compares what came of them with the list: llama-server-tests.py LIST.

A line of the list is `apart` or `fails`, the beginning of a test's name, and, after three spaces or more, why: a test that is apart does not run; one that
fails must go on failing, so that the list stays true. A test that is not listed must pass, and of those that run at least nine
in ten.
"""

import os
import sys

import pytest

sys.path.insert(0, os.getcwd())
import utils

# Models are not fetched: there is one, whatever its name.
utils.ServerPreset.load_all = staticmethod(lambda: None)
# Their texts are those of another model. That there is a text is all that can be asked.
utils.match_regex = lambda regex, text: bool(text)
utils.DEFAULT_HTTP_TIMEOUT = 10
utils.ServerProcess.start.__defaults__ = (10,)

listed = {"apart": {}, "fails": {}}
for line in open(sys.argv[1]):
    if line.strip() and not line.startswith("#"):
        # Names of tests have single spaces in them.
        kind, rest = line.split(" ", 1)
        name, why = rest.split("   ", 1)
        listed[kind][name.strip()] = why.strip()


def of(kind, test):
    return next((name for name in listed[kind] if test.startswith(name)), None)


class Run:
    def __init__(self):
        self.outcomes, self.used, self.apart = {}, set(), 0

    def pytest_collection_modifyitems(self, items):
        kept = []
        for item in items:
            item.short = item.nodeid.removeprefix("unit/")
            name = "slow" if item.get_closest_marker("slow") else of("apart", item.short)
            self.used.add(name)
            if name:
                self.apart += 1
            else:
                kept.append(item)
        items[:] = kept

    def pytest_runtest_logreport(self, report):
        test = report.nodeid.removeprefix("unit/")
        if report.skipped:
            self.apart += 1
        elif report.when == "call" or report.failed:
            self.outcomes[test] = self.outcomes.get(test, True) and report.passed


run = Run()
pytest.main(["-q", "-p", "no:cacheprovider", "--tb=short", "--show-capture=no", "--no-header", "unit"], plugins=[run])
passed = [test for test, good in run.outcomes.items() if good]
failed = [test for test, good in run.outcomes.items() if not good]
surprises = [f"{test}: not listed, and fails" for test in failed if not of("fails", test)]
surprises += [f"{test}: listed as failing, and passes" for test in passed if of("fails", test)]
known = {of("fails", test) for test in failed} | run.used | {"slow"}
surprises += [f"{name}: listed, and there is no such test" for kind in listed.values() for name in kind if name not in known]
share = len(passed) / max(len(run.outcomes), 1)
print(f"llama.cpp's server tests: {run.apart} do not apply, {len(passed)} of {len(run.outcomes)} others pass ({share:.1%})")
print("\n".join(surprises))
sys.exit(bool(surprises) or share < 0.9)
