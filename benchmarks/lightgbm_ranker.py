"""LightGBM on the samples of a ranker: the rival beside every table.

    python benchmarks/lightgbm_ranker.py --config coldrank.configs.kuairand:base --data DATA --out RUN [--set seed=2]

Takes the scalar columns of the arm's features: numbers and counts as they are, categories of at most 32 values as
categories; ids with more values and histories it cannot take. One model per task. `--trials N` settings are tried on
the data's `valid` split, the first as it is, the others drawn, with the number of trees from early stopping there; the
best one is trained again on all of `data.fit`. Writes a run folder that `coldrank compare` reads.
"""

import argparse
from pathlib import Path

import lightgbm as lgb
import numpy as np
import optuna
import polars as pl
from tqdm import tqdm

from coldrank.data.batches import KEYS, DataFolder
from coldrank.data.parquet import read_parquet
from coldrank.models.features import FeatureSet
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig
from coldrank.train.evaluate import metric_rows, summary_table, write_predictions
from coldrank.train.load import load
from coldrank.train.run_folder import RunFolder

MOST_CATEGORIES = 32
PARAMETERS = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 63,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
}


def main() -> None:
    """Trains, scores, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--trials", type=int, default=4, help="settings tried for each task (default: 4)")
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    config = load(args.config, args.set)
    config.name = "lightgbm"
    if "valid" not in config.data.fit:
        raise SystemExit("data.fit must hold 'valid': the number of trees is found on it")
    if others := [task for task, head in config.tasks.items() if not head.is_binary]:
        raise SystemExit(f"tasks.{others[0]}: is not binary, as all are that are learned here")
    data = DataFolder.open(args.data)
    numbers, ids = columns(validate(config))
    frames = {split: read(data, split, config, numbers + ids) for split in (*config.data.fit, config.data.evaluate)}
    test = frames.pop(config.data.evaluate)
    values = {c: pl.concat([f[c] for f in frames.values()]).drop_nulls().unique().sort().to_list() for c in ids}
    categories = {c: v for c, v in values.items() if len(v) <= MOST_CATEGORIES}
    predictions = test.select(*KEYS, *(f"label_{t}" for t in config.tasks), *data.truths(list(config.tasks)))
    for task in tqdm(config.tasks, desc="lightgbm", unit="task"):
        model = fit(frames, task, numbers, categories, config.seed, args.threads, args.trials)
        scores = model.predict(matrix(test, numbers, categories))
        predictions = predictions.with_columns(pl.Series(f"prob_{task}", np.asarray(scores), dtype=pl.Float32))
    finish(config, predictions, args.out)


def columns(features: FeatureSet) -> tuple[list[str], list[str]]:
    """Number columns and id columns of the scalar features."""
    scalar = [f for f in features.features if not f.is_list]
    numbers = dict.fromkeys(f.raw_columns[0] for f in scalar if f.kind != "id")
    return list(numbers), list(dict.fromkeys(f.raw_columns[0] for f in scalar if f.kind == "id"))


def read(data: DataFolder, split: str, config: RunConfig, names: list[str]) -> pl.DataFrame:
    """A split's rows, in order of time."""
    wanted = [*names, *KEYS, *(f"label_{t}" for t in config.tasks), *data.truths(list(config.tasks))]
    return read_parquet(data.files((split,)), list(dict.fromkeys(wanted)))


def matrix(frame: pl.DataFrame, numbers: list[str], categories: dict[str, list[int]]) -> np.ndarray:
    """The rows' columns, float32 [N, F]. A category is its place among the values of the training data, else NaN."""
    exprs = [pl.col(n).cast(pl.Float32).fill_null(float("nan")) for n in numbers]
    for name, values in categories.items():
        code = pl.col(name).replace_strict(values, range(len(values)), default=None, return_dtype=pl.Float32)
        exprs.append(code.fill_null(float("nan")))
    return frame.select(exprs).to_numpy()


def fit(
    frames: dict[str, pl.DataFrame],
    task: str,
    numbers: list[str],
    categories: dict[str, list[int]],
    seed: int,
    threads: int,
    trials: int,
) -> lgb.Booster:
    """One task's model on the rows whose label is known: of the tried settings the one with the best AUC on `valid`."""
    names, label = [*numbers, *categories], f"label_{task}"
    before = pl.concat([f for split, f in frames.items() if split != "valid"])
    sets = {}
    for name, frame in (("fit", before), ("valid", frames["valid"]), ("all", pl.concat(frames.values()))):
        known = frame.filter(pl.col(label).is_not_null())
        values = matrix(known, numbers, categories)
        sets[name] = lgb.Dataset(
            values, known[label].to_numpy(), feature_name=names, categorical_feature=list(categories)
        )
    fixed = {"seed": seed, "num_threads": threads, "metric": "auc"}
    stop = lgb.early_stopping(20, verbose=False)
    tried: list[tuple[float, int, dict[str, float]]] = []
    for drawn in [{}, *draws(trials - 1, seed)]:
        model = lgb.train(PARAMETERS | fixed | drawn, sets["fit"], 1000, valid_sets=[sets["valid"]], callbacks=[stop])
        tried.append((model.best_score["valid_0"]["auc"], max(1, model.best_iteration), drawn))
        tqdm.write(f"{task}: {tried[-1][0]:.4f} on valid with {tried[-1][1]} trees, {drawn or 'as it is'}")
    _, trees, best = max(tried, key=lambda trial: trial[0])
    return lgb.train(PARAMETERS | fixed | best, sets["all"], trees)


def draws(count: int, seed: int) -> list[dict[str, float]]:
    """Random settings of what matters most: the same for every task."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    trials = [study.ask() for _ in range(count)]
    return [
        {
            "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.1, log=True),
            "num_leaves": trial.suggest_categorical("num_leaves", [31, 63, 127]),
            "feature_fraction": trial.suggest_categorical("feature_fraction", [0.3, 0.6, 0.9]),
        }
        for trial in trials
    ]


def finish(config: RunConfig, predictions: pl.DataFrame, out: Path) -> None:
    """Writes the run folder and prints the AUCs."""
    folder = RunFolder(out)
    folder.check(None)
    folder.clear()
    folder.start(config, "LightGBM on the same samples\n")
    write_predictions(
        predictions.sort("time", "user_id", "item_id", maintain_order=True),
        out / f"predictions-{config.data.evaluate}.parquet",
    )
    rows = metric_rows(predictions, config, 0, config.data.evaluate)
    folder.log_evaluation(rows)
    folder.close()
    print(summary_table(rows))


if __name__ == "__main__":
    main()
