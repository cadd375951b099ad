"""The pipelines as data: steps, what they read and write, the tasks and arrows that follow."""
