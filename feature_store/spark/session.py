"""One Spark context per process, started as cheaply as Spark can be started.

The jobs need Spark's scheduler, not its SQL engine: a task is a Python function on one bucket.
Leaving SQL, Hive, the UI and event logs out halves the time to the first task.
"""

import os
import sys
from pathlib import Path

from pyspark import SparkConf, SparkContext

from feature_store.spark.java import java_home

# The JVM schedules and waits: a serial collector and the first compiler tier start fastest.
_LOCAL_JVM = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -XX:-UsePerfData"


def spark_context(master: str, memory: str, scratch: Path) -> SparkContext:
    """The process's Spark context, started by the first call; it ends with the process.

    Args:
        master: Spark master URL. `local[n,m]` with m > 1 retries tasks; `local[n]` never does.
        memory: of the driver's JVM. Python workers hold the data, outside of it.
        scratch: folder for Spark's local files.
    """
    os.environ["JAVA_HOME"] = str(java_home(scratch))
    os.environ["PYSPARK_PYTHON"] = sys.executable
    conf = SparkConf().setMaster(master).setAppName("derm").set("spark.driver.memory", memory)
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.local.dir": str(scratch / "spark"),
        "spark.python.worker.reuse": "true",
    }
    if master.startswith("local"):
        os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
        settings |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.extraJavaOptions": _LOCAL_JVM,
        }
    for key, value in settings.items():
        conf.set(key, value)
    return SparkContext.getOrCreate(conf)
