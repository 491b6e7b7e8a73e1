"""The rules of the SIIM-ISIC set: the order of its rows, and who ends up on which side."""

import hashlib
import io

import numpy as np
import pytest

from emcurate.trimming import siim

# What ISIC 2020 holds.
ROWS, MALIGNANT = 33_126, 584


@pytest.mark.parametrize("seed", range(3))
def test_order_with_missing_and_other_classes_equals_pandas(seed):
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(seed)
    choices = ["benign", "malignant", "indeterminate", "", "NA", "nan", "NULL"]
    classes = rng.choice(choices, 5000, p=[0.7, 0.1, 0.1, 0.04, 0.02, 0.02, 0.02]).tolist()
    text = "n,benign_malignant\n" + "".join(f"{i},{name}\n" for i, name in enumerate(classes))
    frame = pandas.read_csv(io.StringIO(text), dtype={"benign_malignant": object})
    assert siim.order_rows(classes) == frame.sort_values("benign_malignant")["n"].tolist()


def test_order_is_pinned():
    # Computed once with numpy 2.4 and checked with 1.26 and 2.0: the published rows must not depend on the version.
    classes = ["malignant" if i % 3 == 0 else "benign" for i in range(20)]
    assert siim.order_rows(classes, "stable") == [i for i in range(20) if i % 3] + list(range(0, 20, 3))
    assert siim.order_rows(classes) == [19, 1, 2, 17, 4, 5, 16, 7, 8, 10, 11, 14, 13, 15, 0, 18, 6, 3, 12, 9]
    # As many as the real file has, spread over it by a stride.
    classes = ["malignant" if i * 7919 % ROWS < MALIGNANT else "benign" for i in range(ROWS)]
    assert classes.count("malignant") == MALIGNANT
    order = ",".join(map(str, siim.order_rows(classes)))
    assert (
        hashlib.sha256(order.encode()).hexdigest() == "e3c52918312dc4645eba8108a8f4ffa42bfb65cd2d4038c7476005deffc15c59"
    )
