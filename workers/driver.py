"""The entry point of every Ray job: fetch the order, let Ray Train run it. No torch here, its import costs seconds."""

import os
import sys
from typing import Any

import ray
import ray.train
from fsspec.implementations.local import LocalFileSystem
from pyarrow.fs import FSSpecHandler, PyFileSystem
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from service.observations import AttemptOrder
from workers.report import Attempt, Fenced
from workers.store import file_system

WORKER_DEATHS = 3
"""Worker groups that may die within one attempt; then the attempt is lost and the control plane makes the next."""

TRAIN_ENV = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a checkpoint is registered at the next look; the default is 2 s
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # it would print every line twice
    "RAY_TRAIN_METRICS_ENABLED": "0",  # Ray's own gauges of controller and workers; ours come with the reports
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "1800",  # without one, a lost rank would be waited for without end
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


class Trainer(DataParallelTrainer):
    """Ray Train without two helper processes that no job of ours needs; each costs two CPU seconds at every start.

    There is no Ray Data here, and Ray frees the placement groups of a dead driver by itself.
    """

    def _create_default_callbacks(self) -> list[Any]:
        spared = DatasetsCallback | PlacementGroupCleanerCallback
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, spared)]


def work(config: dict[str, Any]) -> str:
    """The training function as it travels to the workers."""
    from workers.loop import train  # imports torch

    return train(config)


def run(order: AttemptOrder) -> str:
    """Run the attempt to its end; returns rank 0's verdict."""
    resources = order.spec.resources
    files, root = file_system(f"{order.store}/{order.folder}")
    trainer = Trainer(
        work,
        train_loop_config={"order": order.model_dump_json(), "cpus": resources.cpus_per_worker},
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker={"CPU": resources.cpus_per_worker}
            | ({"GPU": resources.gpus_per_worker} if resources.gpus_per_worker else {}),
        ),
        run_config=ray.train.RunConfig(
            name="run",
            storage_path=root,
            storage_filesystem=None if isinstance(files, LocalFileSystem) else PyFileSystem(FSSpecHandler(files)),
            failure_config=ray.train.FailureConfig(max_failures=WORKER_DEATHS),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    verdict: str = trainer.fit().return_value
    return verdict


def main() -> None:
    os.environ |= {name: value for name, value in TRAIN_ENV.items() if name not in os.environ}
    try:
        order = Attempt().order()
    except Fenced as error:
        sys.exit(f"the control plane does not want this attempt: {error}")
    # Ray Train's helpers look for a cluster on this machine if they are not told which one is theirs.
    ray.init(runtime_env={"env_vars": {"RAY_ADDRESS": os.environ["RAY_ADDRESS"]}})
    if run(order) == "failed":
        sys.exit("the job failed by itself; the control plane has been told why")


if __name__ == "__main__":
    main()
