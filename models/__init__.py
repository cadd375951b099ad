"""Pure torch and NumPy: no Spark, no Airflow, no storage."""
