"""Programs that stand beside the pipeline, to read and to change."""
