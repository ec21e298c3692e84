#!/usr/bin/env python3
"""Writes an XGBoost model as the file that `foreshock import --xgboost` reads.

    python3 export.py --model model.ubj --rows train.csv --label degrades \
        --features config/features.toml --horizon 1800 --name mine --output export.json

--rows is a CSV file with the training rows: a header with the names of the columns as foreshock knows them
(`mem_used`, `mem_used:peers`), the label (0 or 1) among them, and nothing between the commas where a value
is missing. From a pipeline in Python, call `export()` and `write()` instead.

Needs XGBoost 1.6 or later, and NumPy. A model that was stopped early is exported up to its best iteration.
"""

import argparse
import csv
import json
import math
import os
import sys

import numpy as np
import xgboost

FORMAT, VERSION = "foreshock-xgboost", 1
# Rows that the import has to repeat: as they are, and with values left out.
CHECKS = 300


class ExportError(Exception):
    """Why a model cannot be exported."""


def export(booster, columns, rows, labels, features, name, horizon_seconds, calibration=None):
    """The export of a booster, as a dictionary.

    columns: names in the order of the booster's features. rows: the training rows, NaN for missing.
    labels: 0 or 1 for each row. features: the text of the features file that the rows were made by.
    calibration: `{"slope": …, "intercept": …}` from the booster's log-odds to calibrated ones, if there is one.
    """
    if hasattr(booster, "get_booster"):
        booster = booster.get_booster()
    best = booster.attr("best_iteration")
    booster = booster.copy() if best is None else booster[: int(best) + 1]
    rows = np.asarray(rows, dtype=np.float32)
    labels = np.asarray(labels)
    columns = list(columns)
    if rows.ndim != 2 or rows.shape != (len(labels), len(columns)):
        raise ExportError(f"rows are {rows.shape}, for {len(labels)} labels and {len(columns)} columns")
    if booster.num_features() != len(columns):
        raise ExportError(f"the model has {booster.num_features()} features, and there are {len(columns)} columns")
    if np.isinf(rows).any():
        raise ExportError("rows have infinite values; leave them out, for foreshock takes them as missing")
    if not np.isin(labels, (0, 1)).all():
        raise ExportError("labels are not all 0 or 1")

    config = json.loads(booster.save_config())
    learner = config["learner"]
    parameters = learner["learner_model_param"]
    # Since 3.1 a list, in brackets.
    base_score = parameters["base_score"].strip("[]")
    try:
        probability = float(base_score)
    except ValueError:
        raise ExportError(f"base_score is {base_score}, not one number: the model has several outputs") from None
    if not 0.0 < probability < 1.0:
        raise ExportError(f"base_score is {base_score}, not a probability; train with objective=binary:logistic")
    objective = learner["objective"]["name"]
    if "c" in (booster.feature_types or []):
        raise ExportError("the model has categorical features; train with enable_categorical=False")

    # Without names the dump says f0, f1, …; without types it gives every threshold in full.
    booster.feature_names = None
    booster.feature_types = None
    checks = check_rows(rows)
    margins = booster.predict(xgboost.DMatrix(checks, missing=np.nan), output_margin=True)
    probabilities = 1.0 / (1.0 + np.exp(-margins.astype(np.float64)))
    return {
        "format": FORMAT,
        "version": VERSION,
        "xgboost": ".".join(str(part) for part in config["version"]),
        "name": name,
        "columns": [describe(column, rows[:, i], labels) for i, column in enumerate(columns)],
        "features": features,
        "objective": objective,
        "booster": learner["gradient_booster"]["name"],
        "outputs": max(1, int(parameters["num_class"])) * max(1, int(parameters.get("num_target", 1))),
        "base_margin": math.log(probability / (1.0 - probability)),
        "missing": "nan",
        "horizon_seconds": int(horizon_seconds),
        "training": {"rows": len(labels), "positives": int((labels == 1).sum())},
        **({"calibration": calibration} if calibration else {}),
        "checks": {
            "rows": [[None if math.isnan(value) else value for value in row] for row in checks.tolist()],
            "probabilities": probabilities.tolist(),
        },
        "trees": [json.loads(tree) for tree in booster.get_dump(dump_format="json")],
    }


def describe(name, values, labels):
    """A column: its name, its outermost values, and what it usually reads on a Node that is well."""
    column = {"name": name}
    known = ~np.isnan(values)
    if known.any():
        column["low"], column["high"] = float(values[known].min()), float(values[known].max())
    if (known & (labels == 0)).any():
        column["usual"] = float(np.median(values[known & (labels == 0)]))
    return column


def check_rows(rows):
    """Rows from all over the training rows; in half of them values are missing, in the last one all."""
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), CHECKS)).astype(int)].copy()
    random = np.random.default_rng(1)
    half = rows[1::2]
    half[random.random(half.shape) < 0.2] = np.nan
    rows[-1] = np.nan
    return rows


def write(document, path):
    """Writes an export: afterwards there is the new file or the old one, never half a file."""
    beside = f"{path}.{os.getpid()}"
    try:
        with open(beside, "w", encoding="utf-8") as file:
            json.dump(document, file, separators=(",", ":"), allow_nan=False)
        os.replace(beside, path)
    except BaseException:
        if os.path.exists(beside):
            os.remove(beside)
        raise


def read_rows(path, label):
    """Columns, rows and labels of a CSV file."""
    with open(path, encoding="utf-8", newline="") as file:
        header = next(csv.reader(file), [])
        if label not in header:
            raise ExportError(f"{path} has no column `{label}`; --label names the one with 0 and 1")
        table = np.genfromtxt(file, delimiter=",", ndmin=2)
    if table.shape[0] == 0 or table.shape[1] != len(header):
        raise ExportError(f"{path} has no rows, or rows that are not as long as its header")
    at = header.index(label)
    return header[:at] + header[at + 1 :], np.delete(table, at, axis=1), table[:, at]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, metavar="FILE", help="as XGBoost's save_model wrote it")
    parser.add_argument("--rows", required=True, metavar="FILE", help="the training rows, a CSV file")
    parser.add_argument("--label", required=True, metavar="COLUMN", help="the column of --rows with 0 or 1")
    parser.add_argument("--features", required=True, metavar="FILE", help="the features file that the rows were made by")
    parser.add_argument("--horizon", required=True, type=int, metavar="SECONDS", help="how far ahead a 1 looks")
    parser.add_argument("--name", required=True, help="of the model: lower-case letters, digits, `.`, `-`, `_`")
    parser.add_argument("--slope", type=float, help="calibrated log-odds = slope × log-odds + intercept")
    parser.add_argument("--intercept", type=float)
    parser.add_argument("--output", required=True, metavar="FILE", help="where the export goes")
    arguments = parser.parse_args()
    try:
        booster = xgboost.Booster(model_file=arguments.model)
        columns, rows, labels = read_rows(arguments.rows, arguments.label)
        if booster.feature_names and sorted(booster.feature_names) == sorted(columns):
            rows = rows[:, [columns.index(name) for name in booster.feature_names]]
            columns = list(booster.feature_names)
        elif booster.feature_names:
            raise ExportError(f"{arguments.rows} has other columns than the model: {', '.join(booster.feature_names)}")
        with open(arguments.features, encoding="utf-8") as file:
            features = file.read()
        calibration = None
        if arguments.slope is not None or arguments.intercept is not None:
            slope = 1.0 if arguments.slope is None else arguments.slope
            calibration = {"slope": slope, "intercept": arguments.intercept or 0.0}
        document = export(booster, columns, rows, labels, features, arguments.name, arguments.horizon, calibration)
        write(document, arguments.output)
    except (ExportError, OSError, ValueError, xgboost.core.XGBoostError) as error:
        sys.exit(f"export.py: {error}")
    print(f"wrote {arguments.output}: {len(document['trees'])} trees over {len(columns)} columns")


if __name__ == "__main__":
    main()
