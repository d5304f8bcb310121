"""Which tests lie beside a file of the core: the first pattern that fits says. The quickest come first, for a mutant ends with the
first test that fails."""

from fnmatch import fnmatch
from pathlib import Path

# File -> its tests.
BESIDE: dict[str, str] = {
    "modules/contrast.py": "models/test_two_tower.py train/hooks/test_pam.py",
    "modules/pam.py": "modules/test_pam_rows.py train/hooks/test_pam.py",
    "modules/posterior.py": "modules/test_posterior.py configs/test_defaults.py",
    "modules/cvar.py": "modules/test_posterior.py train/warm_up/test_warm_up.py modules/test_edges.py",
    "modules/inner_loop.py": "modules/test_inner_loop.py train/hooks/test_pam.py",
    "modules/*": "modules configs/test_defaults.py",
    "models/features.py": "models/test_features.py models/test_encode.py models/test_embeddings.py configs/test_defaults.py",
    "models/encode.py": "models/test_encode.py models/test_maps.py models/test_embeddings.py train/test_growing.py",
    "models/embeddings.py": "models/test_embeddings.py models/test_ranker.py",
    "models/maps.py": "models/test_maps.py models/test_encode.py train/test_growing.py train/test_managed.py",
    "models/ranker.py": "models/test_ranker.py models/test_embeddings.py configs/test_defaults.py",
    "models/two_tower.py": "models/test_two_tower.py train/test_retrieval.py configs/test_defaults.py",
    "models/serving/batched.py": "train/export/test_triton.py",
    "models/serving/inputs.py": "models/test_served_inputs.py train/export/test_twin.py",
    "models/serving/compiled.py": "train/export/test_compiled.py",
    "models/serving/*": "train/export/test_served_tables.py train/export/test_requests.py train/export/test_twin.py "
    "train/export/test_update.py train/export/test_export.py",
    "train/metrics.py": "train/test_metrics.py configs/test_defaults.py",
    "train/mann_whitney.py": "train/test_metrics.py train/compare/test_compare.py train/compare/test_days.py",
    "train/retrieval.py": "train/test_retrieval.py models/test_two_tower.py configs/test_defaults.py",
    "train/optimizers.py": "train/test_optimizers.py train/test_resuming.py",
    "train/table_optimizer.py": "train/test_optimizers.py",
    "train/slices.py": "train/test_slices.py",
    "train/checkpoint.py": "train/test_checkpoint_state.py train/test_checkpoint.py train/test_warm_start.py train/test_lock.py",
    "train/streaming.py": "train/test_streaming.py train/test_resuming.py",
    "train/growing.py": "train/test_growing.py train/test_managed.py",
    "train/passes.py": "train/test_trainer.py train/test_resuming.py train/test_checkpoint.py",
    "train/compare/table.py": "train/compare/test_table.py train/compare/test_compare.py",
    "train/compare/rows.py": "train/compare/test_table.py train/compare/test_compare.py train/compare/test_checks.py",
    "train/compare/interval.py": "train/compare/test_interval.py train/compare/test_compare.py",
    "train/compare/days.py": "train/compare/test_days.py train/compare/test_compare.py",
    "train/compare/resample.py": "train/compare/test_days.py train/compare/test_compare.py",
    "train/compare/*": "configs/test_defaults.py train/compare/test_folders.py train/compare/test_checks.py train/compare/test_damaged_runs.py "
    "train/compare/test_compare.py",
    "train/data/asof.py": "train/data/test_asof.py train/data/test_prepare.py",
    "train/data/statistics.py": "train/data/test_asof.py train/data/test_prepare.py",
    "train/data/split.py": "train/data/test_split.py train/data/test_prepare.py train/data/test_warnings.py",
    "train/data/columns.py": "train/data/test_columns.py train/data/test_labels.py train/data/test_prepare.py train/data/test_agree.py "
    "train/data/test_times.py train/data/test_kuairand.py train/data/test_movielens.py",
    "train/data/read.py": "train/data/test_read.py train/data/test_batches.py train/data/test_by_time.py train/data/test_damaged.py",
    "train/data/by_time.py": "train/data/test_by_time.py train/data/test_read.py train/data/test_damaged.py",
    "train/data/ids.py": "train/data/test_ids.py train/data/test_agree.py train/data/test_prepare.py train/data/test_movielens.py",
    "train/hooks/metacf*.py": "train/hooks/test_metacf_hook.py train/hooks/test_hook.py configs/test_defaults.py",
    "train/hooks/mwuf*.py": "train/hooks/test_mwuf_hook.py train/hooks/test_hook.py train/hooks/test_side_passes.py configs/test_defaults.py",
    "train/hooks/pam*.py": "train/hooks/test_pam.py train/hooks/test_pam_enhancer.py train/hooks/test_pam_runs.py configs/test_defaults.py",
    "train/hooks/*": "configs/test_defaults.py train/hooks",
}


def core(root: Path) -> list[str]:
    """The files that mutants are made of, in order."""
    found = {str(p.relative_to(root)) for pattern in BESIDE for p in root.glob(pattern) if p.suffix == ".py"}
    return sorted(f for f in found if (root / f).stat().st_size > 200 and not f.endswith("__init__.py"))


def tests_of(file: str) -> list[str]:
    """Paths of the tests of a file, from the project's root."""
    return [f"tests/{test}" for test in next(t for p, t in BESIDE.items() if fnmatch(file, p)).split()]
