"""Trains LightGBM, XGBoost and scikit-learn on the rows in a folder, and writes what they say of others.

    python theirs.py FOLDER LEARNER…

Called by tests/learners. In the folder: train, validation and test, each as NAME.npy (rows × columns, NaN is
missing) and NAME.labels.npy. Each learner tries two settings, up to 200 trees, keeps as many trees as have the
least loss on the validation rows, and then the setting with the lesser loss. Written: LEARNER.npy, the
probabilities of the test rows, and LEARNER.json, what was tried.
"""

import json
import pathlib
import sys

import lightgbm
import numpy as np
import xgboost
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import average_precision_score, log_loss

TREES_MAX = 200
PATIENCE = 20
THREADS = 1
SEED = 1


def of_lightgbm(rows, settings):
    settings = {"objective": "binary", "verbosity": -1, "seed": SEED, "num_threads": THREADS} | settings
    held_out = lightgbm.Dataset(*rows["validation"])
    booster = lightgbm.train(settings, lightgbm.Dataset(*rows["train"]), TREES_MAX, valid_sets=[held_out],
                             callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)])
    return booster.best_iteration, booster.predict


def of_xgboost(rows, settings):
    settings = {"objective": "binary:logistic", "eval_metric": "logloss", "seed": SEED, "nthread": THREADS} | settings
    matrices = {name: xgboost.DMatrix(*rows[name]) for name in ("train", "validation")}
    booster = xgboost.train(settings, matrices["train"], TREES_MAX, evals=[(matrices["validation"], "validation")],
                            early_stopping_rounds=PATIENCE, verbose_eval=False)
    trees = booster.best_iteration + 1
    return trees, lambda values: booster.predict(xgboost.DMatrix(values), iteration_range=(0, trees))


def of_sklearn(rows, settings):
    model = GradientBoostingClassifier(n_estimators=TREES_MAX, random_state=SEED, **settings)
    model.fit(*rows["train"])
    values, labels = rows["validation"]
    losses = [log_loss(labels, p[:, 1]) for p in model.staged_predict_proba(values)]
    trees = int(np.argmin(losses)) + 1

    def predict(values):
        for number, p in enumerate(model.staged_predict_proba(values), 1):
            if number == trees:
                return p[:, 1]

    return trees, predict


# The settings of LightGBM are those of the comparison that the bounds come from; the others' are their equals.
LEARNERS = {
    "lightgbm": (of_lightgbm, {
        "depth 5, rate 0.1": {"max_depth": 5, "num_leaves": 32, "learning_rate": 0.1},
        "depth 4, rate 0.05, l2 5, rows 0.7": {"max_depth": 4, "num_leaves": 16, "learning_rate": 0.05,
                                               "lambda_l2": 5.0, "bagging_fraction": 0.7, "bagging_freq": 1},
    }),
    "xgboost": (of_xgboost, {
        "depth 5, rate 0.1": {"max_depth": 5, "eta": 0.1},
        "depth 4, rate 0.05, l2 5, rows 0.7": {"max_depth": 4, "eta": 0.05, "lambda": 5.0, "subsample": 0.7},
    }),
    "sklearn": (of_sklearn, {
        "depth 5, rate 0.1": {"max_depth": 5, "learning_rate": 0.1},
        "depth 4, rate 0.05, leaf 20, rows 0.7": {"max_depth": 4, "learning_rate": 0.05, "min_samples_leaf": 20,
                                                  "subsample": 0.7},
    }),
}


def main(folder, names):
    rows = {}
    for name in ("train", "validation", "test"):
        labels = np.load(folder / f"{name}.labels.npy")
        rows[name] = np.load(folder / f"{name}.npy"), labels
    for name in names:
        learn, ways = LEARNERS[name]
        tried, best = [], None
        for way, settings in ways.items():
            trees, predict = learn(rows, settings)
            values, labels = rows["validation"]
            p = predict(values)
            tried.append({"name": way, "trees": trees, "loss": float(log_loss(labels, p)),
                          "pr_auc": float(average_precision_score(labels, p))})
            if best is None or tried[-1]["loss"] < tried[best[0]]["loss"]:
                best = len(tried) - 1, predict
        np.save(folder / f"{name}.npy", best[1](rows["test"][0]).astype(np.float64))
        (folder / f"{name}.json").write_text(json.dumps({"chosen": best[0], "tried": tried}))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2:])
