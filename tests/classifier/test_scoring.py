"""Work that runs ahead keeps its order, its errors and its bounds."""

import time

import pytest

from emcurate.classifier.scoring import run_ahead


def test_running_ahead_keeps_order_and_errors():
    def count():
        yield from range(5)
        raise ZeroDivisionError

    seen = []
    with pytest.raises(ZeroDivisionError):
        for number in run_ahead(count()):
            seen.append(number)
    assert seen == list(range(5))
    assert list(run_ahead(range(100))) == list(range(100))


def test_running_ahead_fetches_no_more_than_asked():
    fetched = []
    ahead = run_ahead((fetched.append(i) or i for i in range(1000)), ahead=3)
    assert next(ahead) == 0
    wait_until(lambda: len(fetched) >= 4)
    ahead.close()
    time.sleep(0.3)
    assert len(fetched) < 10


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
