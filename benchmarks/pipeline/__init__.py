"""The days: simulation, training, merge, publishing, the Pin index, reads, and a day of Airflow."""
