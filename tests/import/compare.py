"""Trains models with XGBoost, takes them through the exporter and the program, and compares what both say.

Called by tests/xgboost, which see.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import xgboost

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Nothing is left in the checkout.
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "deploy" / "xgboost"))
import export as exporter  # noqa: E402

DIFFERENCE_MAX = 1e-6
ROWS = 10_000
FEATURES = ROOT / "config" / "features.toml"
# With the highest value that is drawn. Counts are whole numbers.
COLUMNS = {
    "cpu_used": 1.0,
    "load_per_core": 20.0,
    "psi_cpu": 1.0,
    "mem_used": 1.0,
    "mem_used:peers": 20.0,
    "psi_mem": 1.0,
    "disk_await_read": 2.0,
    "tcp_retrans_ratio": 0.0001,
    "oom_kills": 12,
    "reboots": 6,
}


def draw(random, n, missing, whole):
    """Rows, and labels that hang on two products of columns."""
    rows = random.random((n, len(COLUMNS)))
    hazard = 6.0 * rows[:, 0] * rows[:, 3] + 5.0 * rows[:, 7] * rows[:, 8] + 2.0 * rows[:, 9] - 5.0
    labels = (random.random(n) < 1.0 / (1.0 + np.exp(-hazard))).astype(int)
    for i, (name, high) in enumerate(COLUMNS.items()):
        rows[:, i] *= high
        if name.endswith(":peers"):
            rows[:, i] -= high / 2.0
        if isinstance(high, int) and whole:
            rows[:, i] = np.floor(rows[:, i])
    rows[random.random(rows.shape) < missing] = np.nan
    return rows, labels


def on_the_edge(random, booster, rows):
    """Puts half of the values on a threshold, or so near that only single precision tells."""
    thresholds = {}

    def gather(node):
        if "split" in node:
            thresholds.setdefault(int(node["split"][1:]), []).append(node["split_condition"])
            for child in node["children"]:
                gather(child)

    booster = booster.copy()
    booster.feature_names = booster.feature_types = None
    for tree in booster.get_dump(dump_format="json"):
        gather(json.loads(tree))
    rows = rows.copy()
    for column, values in thresholds.items():
        at = random.random(len(rows)) < 0.5
        exact = np.float32(random.choice(values, at.sum())).astype(np.float64)
        rows[at, column] = exact * (1.0 + random.choice([0.0, 1e-9, -1e-9, 4e-8, -4e-8, 9e-8, -9e-8], at.sum()))
    return rows


def train(kind, random):
    whole = kind == "counts"
    rows, labels = draw(random, 20_000, 0.1 if kind == "missing" else 0.0, whole)
    settings = {"objective": "binary:logistic", "max_depth": 6, "eta": 0.1, "max_bin": 250, "seed": 1}
    names, early = None, {}
    if kind == "missing":
        settings |= {"base_score": 0.02, "max_depth": 5, "scale_pos_weight": 3.0}
    if kind == "counts":
        names = list(COLUMNS)
        settings |= {"base_score": 0.5, "subsample": 0.7, "grow_policy": "lossguide", "eta": 0.3}
        held_out, truth = draw(random, 5_000, 0.0, whole)
    types = ["int" if isinstance(high, int) else "q" for high in COLUMNS.values()] if names else None
    matrix = xgboost.DMatrix(rows, labels, feature_names=names, feature_types=types)
    if kind == "counts":
        held_out = xgboost.DMatrix(held_out, truth, feature_names=names, feature_types=types)
        early = {"evals": [(held_out, "held_out")], "early_stopping_rounds": 5, "verbose_eval": False}
    return xgboost.train(settings, matrix, 100, **early), rows, labels


def write_csv(path, rows, labels):
    with open(path, "w", encoding="utf-8") as file:
        print(*COLUMNS, "degrades", sep=",", file=file)
        for row, label in zip(rows, labels):
            print(*("" if np.isnan(value) else repr(float(value)) for value in row), label, sep=",", file=file)


def run(*command):
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"tests/xgboost: failed: {' '.join(map(str, command))}")
    return done.stdout


def compare(kind, folder):
    random = np.random.default_rng(["complete", "missing", "counts"].index(kind))
    booster, rows, labels = train(kind, random)
    exported, model = folder / f"{kind}.export.json", folder / f"{kind}.json"
    if kind == "missing":
        # As from the command line: saved by XGBoost, with the training rows in a file.
        booster.save_model(folder / "model.ubj")
        write_csv(folder / "rows.csv", rows, labels)
        run(sys.executable, ROOT / "deploy/xgboost/export.py", "--model", folder / "model.ubj", "--rows",
            folder / "rows.csv", "--label", "degrades", "--features", FEATURES, "--horizon", "1800",
            "--name", kind, "--output", exported)
    else:
        exporter.write(exporter.export(booster, COLUMNS, rows, labels, FEATURES.read_text(), kind, 1800), exported)
    print(run("cargo", "run", "--quiet", "--bin", "foreshock", "--", "import", "--xgboost", exported, "--output", model),
          end="")

    rows, _ = draw(random, ROWS, 0.2, kind == "counts")
    rows = np.concatenate([rows[: ROWS // 2], on_the_edge(random, booster, rows[ROWS // 2 :])])
    text = json.dumps([[None if np.isnan(value) else value for value in row] for row in rows.tolist()])
    (folder / "rows.json").write_text(text)
    ours = np.array([float(line) for line in run("cargo", "test", "--quiet", "--test", "import", "--", model,
                                                 folder / "rows.json").split()])
    matrix = xgboost.DMatrix(rows, feature_names=booster.feature_names, feature_types=booster.feature_types)
    best = booster.attr("best_iteration")
    until = (0, 0 if best is None else int(best) + 1)
    theirs = booster.predict(matrix, iteration_range=until).astype(np.float64)
    difference = np.abs(ours - theirs).max()
    print(f"figure xgboost_{kind}_rows {len(ours)}")
    print(f"figure xgboost_{kind}_trees {until[1] or booster.num_boosted_rounds()}")
    print(f"figure xgboost_{kind}_scores_differ {len(np.unique(theirs))}")
    print(f"figure xgboost_{kind}_difference_max {difference:.1e}")
    return len(ours) == ROWS and difference <= DIFFERENCE_MAX and np.ptp(theirs) > 0.5


def main():
    print(f"XGBoost {xgboost.__version__}")
    with tempfile.TemporaryDirectory(prefix="foreshock-xgboost.") as folder:
        wrong = [kind for kind in ("complete", "missing", "counts") if not compare(kind, pathlib.Path(folder))]
    print(f"figure xgboost_models_wrong {len(wrong)}")
    if wrong:
        sys.exit(f"tests/xgboost: not within {DIFFERENCE_MAX}: {', '.join(wrong)}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
