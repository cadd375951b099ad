"""Where am I: the only module that reads the environment.

`Settings` says where services and machines are and may differ between two runs of the same day.
`Home` says what this pipeline is: it is written once by `derm init`, and changing it afterwards
would change what yesterday's state means.
"""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from feature_store.contracts.base import Contract, Day
from feature_store.contracts.errors import InputError, ManifestCorrupt
from feature_store.contracts.rankers import RankerDeclaration
from feature_store.contracts.upstreams import UpstreamDeclaration
from feature_store.online.address import check_address
from jobs.paths import HomePaths

# What homes had before they recorded it.
_BEFORE_DECLARATIONS = (UpstreamDeclaration(name="ctr"), UpstreamDeclaration(name="cvr"))
PROJECT = Path(__file__).resolve().parents[1]


class Settings(BaseSettings):
    """Infrastructure, from environment variables named DERM_*.

    Attributes:
        home: root of everything a run writes.
        lake: where the lake's tables are, as `s3://bucket/prefix`; empty: `lake` below `home`.
            An object store is reached with the AWS_* variables.
        redis_url: the online store; empty starts an embedded server below `home`.
        engine: where dedup, merge and count work: `local`, in their own process; `spark`; `auto`:
            on Spark above four gigabytes. The results are the same, bit for bit.
        spark_master: Spark master URL; the default retries a task twice.
        spark_memory: memory of the Spark driver's JVM; Spark asks for 512m at least.
        threads: CPU threads of one process; 0 means all cores. The last bits of a model depend on
            it, so it is not taken from the machine; and ctr and cvr run side by side.
        device: where torch computes.
        train_processes: processes of one training, one per GPU; above 1 they run under torchrun.
        track: who else is told of every step of a training: `tensorboard`, `mlflow`, or both with a
            comma; TensorBoard's files are in `tracking` below `home`.
        mlflow_uri: of MLflow's tracking server or database.
        bin: the `derm` program of the job environment, which Airflow's tasks run.
        airflow_env: Airflow's own environment.
        task_slots: tasks that run at once on this machine.
        gpu_slots: of them, tasks that train or infer.
        spark_slots: of them, tasks that hold a JVM.
        last_ds: last day the schedule starts by itself; empty: until today.
        alert_webhook: where failures and late days are sent, as JSON by POST; empty: nowhere.
        table_shards: where the shards of the id tables listen, in order, `tcp://host:port` or
            `unix:///a/path`, with a comma between; empty: at sockets below `home`.
        table_token: what those who publish tables must know; needed where shards listen on a port
            that others reach.
        airflow_metrics: where Airflow's own metrics go: `statsd://host:port` (UDP) or
            `otlp://host:port` (OpenTelemetry over HTTP); empty: nowhere.
    """

    model_config = SettingsConfigDict(
        env_prefix="DERM_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    home: Path = Path(".derm")
    lake: str = Field(default="", pattern=r"^(s3://[^/\s]+(/[^\s]*)?)?$")
    redis_url: SecretStr = SecretStr("")
    engine: Literal["auto", "local", "spark"] = "auto"
    spark_master: str = "local[2,3]"
    spark_memory: str = "1g"
    threads: int = Field(default=1, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    train_processes: int = Field(default=1, ge=1)
    track: str = Field(default="", pattern=r"^((tensorboard|mlflow)(,(tensorboard|mlflow))?)?$")
    mlflow_uri: str = ""
    bin: Path = PROJECT / ".venv" / "bin" / "derm"
    airflow_env: Path = PROJECT / ".venv-airflow"
    task_slots: int = Field(default=4, ge=1)
    gpu_slots: int = Field(default=2, ge=1)
    spark_slots: int = Field(default=2, ge=1)
    last_ds: Day | Literal[""] = ""
    alert_webhook: SecretStr = SecretStr("")
    table_shards: str = ""
    table_token: SecretStr = SecretStr("")
    airflow_metrics: str = Field(default="", pattern=r"^((statsd|otlp)://[^:/\s]+:\d+)?$")

    @field_validator("redis_url")
    @classmethod
    def _is_an_address(cls, url: SecretStr) -> SecretStr:
        if url.get_secret_value():
            check_address(url.get_secret_value())
        return url

    @property
    def lake_root(self) -> str | Path:
        """Where the lake's tables are."""
        return self.lake or self.paths.lake

    @property
    def paths(self) -> HomePaths:
        """Where everything of the home is."""
        return HomePaths(self.home)

    @classmethod
    def from_environment(cls) -> Self:
        """Read the environment.

        Raises:
            InputError: a variable has a value that it cannot have.
        """
        try:
            return cls()
        except ValidationError as error:
            first = error.errors()[0]
            name = "_".join(map(str, first["loc"])).upper()
            raise InputError(
                f"DERM_{name} has a value it cannot have",
                where="the environment",
                expected=first["msg"],
                found=re.sub(r"//.*@", "//***@", str(first["input"])),
            ) from None


class Home(Contract):
    """What this pipeline is.

    Attributes:
        dataset: a name of `jobs.datasets.registry`, or the path of a declaration.
        source: folder of the user's files; empty for the simulated world.
        recipe: name of a function in `jobs.recipes`, or `FILE.py:FUNCTION`.
        recipe_digest: SHA-256 of that file when the home recorded it; empty for `jobs.recipes`.
        first_ds: first day with events.
        start_ds: first day the pipeline publishes; earlier days only feed the first training.
        upstreams: what its days are made for, as its data set and recipe declared them.
        rankers: what learns from its releases; others may take their place, since nothing is made
            of a ranker.
        tables: of a day, beside events, users and Pins, as its data set declared them.
    """

    dataset: str
    source: str = ""
    recipe: str
    recipe_digest: str = ""
    first_ds: Day
    start_ds: Day
    seed: int = 0
    upstreams: tuple[UpstreamDeclaration, ...] = _BEFORE_DECLARATIONS
    rankers: tuple[RankerDeclaration, ...] = ()
    tables: tuple[str, ...] = ()

    @classmethod
    def load(cls, root: Path) -> Self:
        """Read the home's declaration.

        Raises:
            InputError: the home was never initialised.
            ManifestCorrupt: the file cannot be read back.
        """
        path = HomePaths(root).declaration
        if not path.exists():
            raise InputError(
                f"{root} is not a derm home",
                where=str(path),
                hint="create one: derm init --dataset simulated --recipe toy",
            )
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ManifestCorrupt(
                "home.json cannot be read",
                where=str(path),
                found=str(error),
                hint="remove it, and declare the home again with the arguments of its derm init",
            ) from error

    def save(self, root: Path) -> None:
        """Write the declaration; a changed recipe file and other rankers are recorded.

        Raises:
            InputError: the home exists and was declared differently.
        """
        path = HomePaths(root).declaration
        existing = Home.load(root) if path.exists() else self
        changeable = {"recipe_digest": self.recipe_digest, "rankers": self.rankers}
        if existing.model_copy(update=changeable) != self:
            raise InputError(
                f"{root} already holds another pipeline",
                where=str(path),
                expected=existing.model_dump_json(),
                found=self.model_dump_json(),
                hint="set DERM_HOME to a new folder, or remove this one",
            )
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=2) + "\n")
