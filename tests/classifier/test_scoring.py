"""Work that runs ahead keeps its order, its errors and its bounds."""

import time

import pytest

from emcurate.classifier.computing import choose_for_all, run_ahead
from emcurate.errors import InputError
from emcurate.running.jobs import Workers


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


class MixedWorkers(Workers):
    """A cluster of two workers, one of them with a GPU."""

    def ask(self, function, question):
        return [("cuda", "float16"), ("cpu", "bfloat16")]


def test_workers_that_would_compute_differently_are_refused():
    assert choose_for_all(Workers(), "cpu", "float32") == ("cpu", "float32")
    with pytest.raises(InputError, match="found bfloat16 on cpu and float16 on cuda; name one that all have"):
        choose_for_all(MixedWorkers(scheduler="tcp://host:8786"), "auto", "auto")
