"""The services one machine needs beside the pipeline: PostgreSQL and Airflow, and Redis."""
