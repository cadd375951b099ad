"""What every experiment shares: cells, their results, intervals, hypotheses and the report."""
