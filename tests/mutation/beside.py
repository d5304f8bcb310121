"""Which tests lie beside a file of the core: the first pattern that fits says.

The quickest come first, for a mutant ends with the first test that fails.
"""

from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]
# File -> its tests.
BESIDE: dict[str, str] = {
    "modules/contrast.py": "models/test_two_tower.py train/hooks/test_pam.py",
    "modules/pam.py": "modules/test_pam_rows.py train/hooks/test_pam.py",
    "modules/posterior.py": "modules/test_posterior.py configs/test_defaults.py",
    "modules/cvar.py": "modules/test_posterior.py experiments/test_warm_up.py modules/test_edges.py",
    "modules/inner_loop.py": "modules/test_inner_loop.py train/hooks/test_pam.py",
    "modules/*": "modules configs/test_defaults.py",
    "models/features.py": "models/test_features.py models/test_encode.py models/test_embeddings.py "
    "configs/test_defaults.py",
    "models/encode.py": "models/test_encode.py models/test_maps.py models/test_embeddings.py "
    "train/ids/test_dynamic_ids.py",
    "models/embeddings.py": "models/test_embeddings.py models/test_ranker.py",
    "models/ids/*": "models/test_maps.py models/test_counts.py models/test_state_names.py models/test_encode.py "
    "train/ids/test_admission.py train/ids/test_dynamic_ids.py train/ids/test_eviction.py",
    "models/ranker.py": "models/test_ranker.py models/test_embeddings.py configs/test_defaults.py",
    "models/two_tower.py": "models/test_two_tower.py models/test_state_names.py train/test_idle.py "
    "metrics/test_retrieval.py configs/test_defaults.py",
    "serving/batched.py": "serving/test_triton.py",
    "serving/inputs.py": "serving/test_served_inputs.py serving/test_twin.py",
    "serving/compiled.py": "serving/test_compiled.py",
    "serving/score.py": "serving/test_score.py",
    "serving/update.py": "serving/test_update.py serving/test_requests.py",
    "serving/order.py": "serving/test_order.py serving/test_served_tables.py serving/test_twin.py",
    "serving/*": "serving/test_learnt.py serving/test_served_tables.py serving/test_requests.py serving/test_twin.py "
    "serving/test_update.py serving/test_export.py",
    "metrics/by_cohort.py": "metrics/test_metrics.py metrics/test_value_metrics.py configs/test_defaults.py",
    "metrics/mann_whitney.py": "metrics/test_metrics.py analysis/compare/test_compare.py analysis/compare/test_days.py",
    "metrics/retrieval.py": "metrics/test_retrieval.py models/test_two_tower.py configs/test_defaults.py",
    "train/optim/optimizers.py": "train/optim/test_optimizers.py train/test_resuming.py train/hooks/test_mwuf_hook.py",
    "train/optim/table_optimizer.py": "train/optim/test_optimizers.py",
    "train/optim/micro_batches.py": "train/optim/test_micro_batches.py",
    "train/checkpoint.py": "train/test_checkpoint_state.py train/test_checkpoint.py train/test_warm_start.py "
    "train/test_lock.py",
    "train/streaming.py": "train/test_streaming.py train/test_resuming.py",
    "train/ids/dynamic.py": "train/ids/test_dynamic_ids.py train/ids/test_eviction.py",
    "train/passes.py": "train/test_trainer.py train/test_resuming.py train/test_checkpoint.py",
    "analysis/compare/table.py": "analysis/compare/test_table.py analysis/compare/test_compare.py",
    "analysis/compare/rows.py": "analysis/compare/test_table.py analysis/compare/test_compare.py "
    "analysis/compare/test_numbers.py analysis/compare/test_checks.py",
    "analysis/compare/numbers.py": "analysis/compare/test_numbers.py",
    "analysis/compare/interval.py": "analysis/compare/test_interval.py analysis/compare/test_compare.py",
    "analysis/compare/days.py": "analysis/compare/test_days.py analysis/compare/test_compare.py",
    "analysis/compare/resample.py": "analysis/compare/test_days.py analysis/compare/test_compare.py",
    "analysis/compare/*": "configs/test_defaults.py analysis/compare/test_folders.py analysis/compare/test_checks.py "
    "analysis/compare/test_damaged_runs.py analysis/compare/test_compare.py",
    "data/asof.py": "data/test_asof.py data/test_prepare.py",
    "data/statistics.py": "data/test_asof.py data/test_prepare.py",
    "data/split.py": "data/test_split.py data/test_prepare.py data/test_warnings.py",
    "data/columns.py": "data/test_columns.py data/test_labels.py data/test_prepare.py data/test_agree.py "
    "data/test_times.py data/test_kuairand.py data/test_movielens.py",
    "data/read.py": "data/test_read.py data/test_batches.py data/test_by_time.py data/test_damaged.py",
    "data/by_time.py": "data/test_by_time.py data/test_read.py data/test_damaged.py",
    "data/ids.py": "data/test_ids.py data/test_agree.py data/test_prepare.py data/test_movielens.py",
    "train/hooks/metacf*.py": "train/hooks/test_metacf_hook.py train/hooks/test_metacf_negatives.py "
    "train/hooks/test_hook.py configs/test_defaults.py",
    "train/hooks/mwuf*.py": "train/hooks/test_mwuf_hook.py train/hooks/test_hook.py train/hooks/test_side_passes.py "
    "configs/test_defaults.py",
    "train/hooks/posterior/*": "train/hooks/test_posterior_hook.py configs/test_defaults.py",
    "train/hooks/pam/*": "train/hooks/test_pam_before.py train/hooks/test_pam.py train/hooks/test_pam_enhancer.py "
    "train/hooks/test_pam_runs.py models/test_state_names.py configs/test_defaults.py",
    "train/hooks/*": "configs/test_defaults.py train/hooks",
}


def core(root: Path) -> list[str]:
    """The files that mutants are made of, in order."""
    files = {str(p.relative_to(root)) for pattern in BESIDE for p in root.glob(pattern) if p.suffix == ".py"}
    return sorted(f for f in files if (root / f).stat().st_size > 200 and not f.endswith("__init__.py"))


def tests_of(file: str) -> list[str]:
    """Paths of the tests of a file, from the project's root."""
    return [f"tests/{test}" for test in next(t for p, t in BESIDE.items() if fnmatch(file, p)).split()]
