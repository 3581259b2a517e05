"""The Dagster instance of a root: its home, what a killed process left behind, and events reported without a run.

Bulk ingestion and repair report one materialization a partition, with its own data version and provenance, because one run
over many partitions would stamp one version on all. Source: architecture.md, "Traps"; stack.md, section 2.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    INPUT_DATA_VERSION_TAG_PREFIX,
    INPUT_EVENT_POINTER_TAG_PREFIX,
)
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from sigma_assets.checks.contract import CHECK
from sigma_assets.stages import STAGES
from sigma_assets.world import World
from sigma_core.artifacts import digest_json
from sigma_core.contracts import bundled_path, contract_names

HOME: Final = ".dagster"
KEPT_RUNS: Final = 8  # runs whose databases stay open
BUSY_SECONDS: Final = 30.0  # how long SQLite waits for another process; as Dagster has it
AT_WORK: Final = (
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
"""What a run's status is while some process should be working on it."""

_MATERIALIZED: Final = dg.DagsterEventType.ASSET_MATERIALIZATION
_NO_COMPUTE_LOGS: Final = {
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
}


def prepare_home(root: Path) -> Path:
    """DAGSTER_HOME of the root, made from the bundled dagster.yaml when missing; also put into the environment."""
    home = (root / HOME).resolve()
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        shutil.copyfile(bundled_path("dagster.yaml"), home / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    return home


@contextmanager
def open_instance(root: Path) -> Iterator[dg.DagsterInstance]:
    """The root's instance for one command. Terminal output is left alone: no compute logs are captured."""
    home = prepare_home(root)
    ref = InstanceRef.from_dir(str(home), overrides=_NO_COMPUTE_LOGS)
    with _unhurried_disk(), dg.DagsterInstance.from_ref(ref) as instance, ExitStack() as keepers:
        keepers.enter_context(_kept_connections(instance))
        instance.get_runs_count()  # Dagster opens a database for every event: one kept open spares a checkpoint each time
        for database in (home / "history" / "runs.db", home / "history" / "runs" / "index.db"):
            if database.exists():
                keepers.enter_context(closing(sqlite3.connect(database))).execute(
                    "SELECT 1 FROM sqlite_master"
                ).fetchall()
        yield instance


@contextmanager
def _unhurried_disk() -> Iterator[None]:
    """Let SQLite not wait for the disk after every event: a run costs a third.

    A killed process loses nothing by it. A power cut may cost the event log, but never artifacts: with `.dagster` deleted,
    `reconcile` reports what is on disk anew.
    """

    def relax(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", relax)
    try:
        yield
    finally:
        event.remove(Engine, "connect", relax)


@contextmanager
def _kept_connections(instance: dg.DagsterInstance) -> Iterator[None]:
    """Let the event log keep its connections: Dagster makes an engine and a connection for every event it stores or reads.

    Only for the default SQLite storage. Every run has a database of its own; its tables are copied, made once by Dagster.
    """
    storage: Any = instance.event_log_storage
    if not isinstance(instance.event_log_storage, SqliteEventLogStorage):
        yield
        return
    original, engines = storage._connect, {}  # noqa: SLF001 no public way to keep a connection
    pattern = Path(storage.path_for_shard(f".{os.getpid()}.pattern"))  # an empty database of a run
    known = storage._initialized_dbs  # noqa: SLF001

    @contextmanager
    def kept(shard: str) -> Iterator[Any]:
        path = Path(storage.path_for_shard(shard))
        if shard not in known and (shard == INDEX_SHARD_NAME or path.exists()):
            with original(shard) as connection:
                yield connection
            return
        with storage._db_lock:  # noqa: SLF001 as Dagster's own
            if shard not in known:
                if not pattern.exists():
                    engine = create_engine(storage.conn_string_for_shard(pattern.stem), poolclass=NullPool)
                    storage._initdb(engine)  # noqa: SLF001
                shutil.copyfile(pattern, path)
                known.add(shard)
            if shard not in engines:
                address = storage.conn_string_for_shard(shard)
                engines[shard] = create_engine(address, connect_args={"timeout": BUSY_SECONDS})
                runs = [name for name in engines if name != INDEX_SHARD_NAME]
                for name in runs[:-KEPT_RUNS]:
                    engines.pop(name).dispose()
            with engines[shard].connect() as connection, connection.begin():
                yield connection

    storage._connect = kept  # noqa: SLF001
    try:
        yield
    finally:
        storage._connect = original  # noqa: SLF001
        for engine in engines.values():
            engine.dispose()
        for file in pattern.parent.glob(f"{pattern.name}*"):
            file.unlink()


def bury_dead_runs(instance: dg.DagsterInstance, *, beside_ui: bool = False) -> list[str]:
    """Mark runs that no process works on any more as failed and free their pool slots; returns their ids.

    Whoever calls this holds the root's lock, so an unfinished run belongs to a killed process. With `beside_ui`, where only an
    order's lock is held, runs that the UI launched are left alone.
    """
    unfinished = instance.get_runs(filters=dg.RunsFilter(statuses=AT_WORK))
    dead = [run for run in unfinished if not (beside_ui and run.remote_job_origin)]
    for run in dead:
        instance.report_run_failed(
            run, "the process of this run was killed; `sigma materialize` goes on without it"
        )
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.run_id for run in dead]


@contextmanager
def one_transaction(instance: dg.DagsterInstance) -> Iterator[None]:
    """Store all events of the block in one transaction a database instead of three a event: ten times faster.

    Only for the default SQLite storage, and only single-threaded; any other storage is left as it is.
    """
    storage: Any = instance.event_log_storage
    if not isinstance(instance.event_log_storage, SqliteEventLogStorage):
        yield
        return
    instance.event_log_storage.get_asset_records([dg.AssetKey("none")])  # makes sure the databases are set up
    with ExitStack() as stack:
        connections: dict[str, Any] = {}

        @contextmanager
        def shared(shard: str) -> Iterator[Any]:
            if shard not in connections:
                path = Path(storage.path_for_shard(shard))
                if not path.exists():  # first event of this shard: let Dagster create its tables
                    with original(shard):
                        pass
                engine = create_engine(storage.conn_string_for_shard(shard), poolclass=NullPool)
                stack.callback(engine.dispose)
                connection = stack.enter_context(engine.connect())
                stack.enter_context(connection.begin())
                connections[shard] = connection
            yield connections[shard]

        original = storage._connect  # noqa: SLF001 no public way to batch events
        storage._connect = shared  # noqa: SLF001
        try:
            yield
        finally:
            storage._connect = original  # noqa: SLF001


def report_partitions(
    instance: dg.DagsterInstance,
    world: World,
    asset: str,
    partitions: Sequence[str],
    metadata: dict[str, dict[str, Any]] | None = None,
) -> None:
    """Report complete partitions of an asset as materialized, each with its data version and where it came from."""
    pointers = {read.asset: _newest_event(instance, read.asset) for read in STAGES[asset].reads.values()}
    for partition in partitions:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                asset_key=asset,
                partition=partition,
                metadata=(metadata or {}).get(partition, {}),
                tags=_provenance(world.store.manifest(asset, partition), pointers),
            )
        )


def report_checks(
    instance: dg.DagsterInstance,
    asset: str,
    results: dict[str, Sequence[dg.AssetCheckResult]],
    blocking: Iterable[str],
) -> None:
    """Report one evaluation a partition and check, aimed at the partition's newest materialization."""
    storage = instance.event_log_storage
    _forget_earlier(storage, asset, list(results))
    newest = storage.get_latest_storage_id_by_partition(dg.AssetKey(asset), _MATERIALIZED, set(results))
    for partition, found in results.items():
        target = newest.get(partition)
        for result in found:
            instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(
                    asset_key=dg.AssetKey(asset),
                    check_name=str(result.check_name),
                    passed=result.passed,
                    metadata=result.metadata,
                    severity=result.severity,
                    description=result.description,
                    blocking=str(result.check_name) in blocking,
                    partition=partition,
                    target_materialization_data=None
                    if target is None
                    else AssetCheckEvaluationTargetMaterializationData(
                        storage_id=target, run_id="", timestamp=0.0
                    ),
                )
            )


def _forget_earlier(storage: Any, asset: str, partitions: list[str]) -> None:
    """Take earlier run-less evaluations out of the table of executions, which has room for one of them a partition.

    Dagster 1.13.27 inserts without looking, and a unique index refuses the second one; the events themselves stay.
    """
    table = AssetCheckExecutionsTable
    with storage.index_connection() as connection:
        connection.execute(
            table.delete().where(
                table.c.asset_key == dg.AssetKey(asset).to_string(),
                table.c.run_id == "",
                table.c.partition.in_(partitions),
            )
        )


def reconcile(instance: dg.DagsterInstance, world: World) -> int:
    """Report what is on disk and Dagster does not know (a process was killed in between); returns how many.

    Partitions, and that they passed their contract, where no evaluation of what lies there is known: nothing else is ever written.
    """
    reported = 0
    for asset in STAGES:
        manifests = {key: world.manifest(asset, key) for key in world.store.partitions(asset)}
        digests = {key: manifest["digest"] for key, manifest in manifests.items() if manifest}
        if not digests:
            continue
        known = instance.event_log_storage.get_latest_tags_by_partition(
            dg.AssetKey(asset), _MATERIALIZED, [DATA_VERSION_TAG]
        )
        unknown = [
            key for key, digest in digests.items() if known.get(key, {}).get(DATA_VERSION_TAG) != digest
        ]
        if unknown:
            with one_transaction(instance):
                report_partitions(instance, world, asset, unknown)
            reported += len(unknown)
        if asset in contract_names():
            _reconcile_checks(instance, world, asset, set(digests))
    return reported


def _reconcile_checks(instance: dg.DagsterInstance, world: World, asset: str, there: set[str]) -> None:
    """Report the blocking check as passed for partitions whose newest version was never evaluated, as far as Dagster knows."""
    check = dg.AssetCheckKey(dg.AssetKey(asset), CHECK)
    infos = instance.event_log_storage.get_asset_check_partition_info([check])
    judged = {one.partition_key for one in infos if one.is_current}
    silent = sorted(key for key in there - judged if world.failure(asset, key) is None)
    result = dg.AssetCheckResult(
        passed=True, check_name=CHECK, description="it lies on disk: it was checked before it was written"
    )
    if silent:
        with one_transaction(instance):
            report_checks(instance, asset, {key: [result] for key in silent}, blocking=(CHECK,))


def _newest_event(instance: dg.DagsterInstance, asset: str) -> int | None:
    records = instance.get_asset_records([dg.AssetKey(asset)])
    newest = records[0].asset_entry.last_materialization_record if records else None
    return newest.storage_id if newest else None


def _provenance(manifest: dict[str, Any], pointers: dict[str, int | None]) -> dict[str, str]:
    """The tags from which Dagster decides whether the partition is stale."""
    tags = {
        DATA_VERSION_TAG: manifest["digest"],
        DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
        CODE_VERSION_TAG: manifest["code_version"],
    }
    for asset, pointer in pointers.items():
        read = {key: digest for key, digest in manifest["lineage"].items() if key.startswith(f"{asset}/")}
        tags[f"{INPUT_DATA_VERSION_TAG_PREFIX}/{asset}"] = digest_json(read)
        tags[f"{INPUT_EVENT_POINTER_TAG_PREFIX}/{asset}"] = str(pointer) if pointer is not None else "NULL"
    return tags
