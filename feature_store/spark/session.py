"""One Spark context per process, started as cheaply as Spark can be started.

The jobs need Spark's scheduler, not its SQL engine: a task is a Python function on one bucket.
Leaving SQL, Hive, the UI and event logs out halves the time to the first task, and an archive of
the JVM's loaded classes takes another second off every process after the first.
"""

import atexit
import logging
import os
import sys
from pathlib import Path
from typing import Any

from pyspark import SparkConf, SparkContext

from feature_store.spark.java import java_home

# The JVM schedules and waits: a serial collector and the first compiler tier start fastest.
_LOCAL_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xlog:cds=off")
_LOCAL_JVM_LOG = ("-Xlog:cds+dynamic=off", "-Xlog:class+path=off")
_KEPT_BYTES = 1 << 30
_LOG4J = """\
rootLogger.level = error
rootLogger.appenderRef.stderr.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss} %-7p spark: %m%n
"""


def spark_context(master: str, memory: str, scratch: Path) -> SparkContext:
    """The process's Spark context, started by the first call; it ends with the process.

    Args:
        master: Spark master URL. `local[n,m]` with m > 1 retries tasks; `local[n]` never does.
        memory: of the driver's JVM. Python workers hold the data, outside of it.
        scratch: folder for Spark's local files.
    """
    scratch = scratch.absolute()
    scratch.mkdir(parents=True, exist_ok=True)
    java = java_home(scratch)
    os.environ["JAVA_HOME"] = str(java)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    # py4j reports every connection it closes at level INFO.
    logging.getLogger("py4j").setLevel(logging.WARNING)
    conf = SparkConf().setMaster(master).setAppName("derm").set("spark.driver.memory", memory)
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": str(scratch / "spark"),
        "spark.python.worker.reuse": "true",
        # Over TCP each task waits 40 ms for a delayed acknowledgement.
        "spark.python.unix.domain.socket.enabled": "true",
        # A worker keeps the memory of one row group for the next: fresh pages cost as much as
        # the arithmetic.
        "spark.executorEnv.MALLOC_MMAP_THRESHOLD_": str(_KEPT_BYTES),
        "spark.executorEnv.MALLOC_TRIM_THRESHOLD_": str(_KEPT_BYTES),
    }
    if master.startswith("local"):
        os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
        settings |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.extraJavaOptions": " ".join(_local_options(java, scratch)),
        }
    for key, value in settings.items():
        conf.set(key, value)
    return SparkContext.getOrCreate(conf)


def stop_spark() -> None:
    """End the process's Spark, if it has one, and wait for its JVM."""
    context = SparkContext._active_spark_context
    if context is None:
        return
    gateway: Any = context._gateway
    context.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait()
    # Whoever needs Spark after this starts another JVM.
    SparkContext._gateway = SparkContext._jvm = None


def _local_options(java: Path, scratch: Path) -> list[str]:
    """Options of a JVM that lives in this process's machine for seconds."""
    log4j = scratch / "log4j2.properties"
    if not log4j.exists():
        log4j.write_text(_LOG4J)
    options = [*_LOCAL_JVM, *_LOCAL_JVM_LOG, f"-Dlog4j2.configurationFile={log4j.as_uri()}"]
    archive = scratch / "spark-classes.jsa"
    if archive.exists():
        # Another Java or Spark than the one that wrote the archive ignores it.
        options.append(f"-XX:SharedArchiveFile={archive}")
    elif (java / "lib" / "server" / "classes.jsa").exists():
        draft = archive.with_suffix(f".{os.getpid()}")
        options.append(f"-XX:ArchiveClassesAtExit={draft}")
        atexit.register(_keep_archive, draft, archive)
    return [f'"{option}"' for option in options]  # a path may hold a space


def _keep_archive(draft: Path, archive: Path) -> None:
    """Let the JVM end and write its class archive, then give it its name."""
    stop_spark()
    if draft.exists():
        draft.replace(archive)
