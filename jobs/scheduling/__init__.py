"""The catalog as DAGs; the only place that imports Airflow, with dags/."""
