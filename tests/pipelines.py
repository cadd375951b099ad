"""The pipeline that most tests run: the two upstreams that the built-in data sets declare."""

from feature_store.contracts.upstreams import UpstreamDeclaration
from jobs.pipelines.catalog import Pipeline

UPSTREAMS = ("ctr", "cvr")
DECLARED = tuple(UpstreamDeclaration(name=name) for name in UPSTREAMS)
PIPELINE = Pipeline(upstreams=DECLARED)
# One more, that learns from edges, so that every step of the catalog is there.
GRAPH = UpstreamDeclaration(name="nodes", family="transra", reads="edges", published=False)
WHOLE = Pipeline(upstreams=(*DECLARED, GRAPH))
