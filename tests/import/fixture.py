"""Writes src/model/xgboost/small.json: a small export, for the tests that have no XGBoost.

    python3 tests/import/fixture.py
"""

import pathlib
import sys

import numpy as np
import xgboost

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Nothing is left in the checkout.
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "deploy" / "xgboost"))
import export as exporter  # noqa: E402

COLUMNS = ["mem_used", "psi_io", "mem_used:peers", "oom_kills"]


def main():
    random = np.random.default_rng(7)
    rows = random.random((3_000, len(COLUMNS))) * [1.0, 1.0, 20.0, 8.0] - [0.0, 0.0, 10.0, 0.0]
    rows[:, 3] = np.floor(rows[:, 3])
    hazard = 6.0 * rows[:, 0] * rows[:, 1] + 0.1 * rows[:, 2] + 0.4 * rows[:, 3] - 4.0
    labels = (random.random(len(rows)) < 1.0 / (1.0 + np.exp(-hazard))).astype(int)
    # What is missing says something, so that splits learn where to send it.
    rows[(random.random(rows.shape) < 0.1) | ((random.random(rows.shape) < 0.3) & (labels == 1)[:, None])] = np.nan
    settings = {"objective": "binary:logistic", "max_depth": 3, "eta": 0.5, "base_score": 0.1}
    booster = xgboost.train(settings, xgboost.DMatrix(rows, labels), 8)
    text = (ROOT / "config" / "features.toml").read_text()
    entries = ["[[feature" + entry for entry in text.split("[[feature")[1:]]
    wanted = {column.split(":")[0] for column in COLUMNS}
    features = "".join(entry for entry in entries if entry.split('name = "')[1].split('"')[0] in wanted)
    exporter.CHECKS = 80
    document = exporter.export(booster, COLUMNS, rows, labels, features, "small", 1_800)
    exporter.write(document, ROOT / "src" / "model" / "xgboost" / "small.json")


if __name__ == "__main__":
    main()
