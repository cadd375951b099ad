"""A recipe whose days take seconds: for stories to which the numbers of a day do not matter.

It stands alone, as the file of a user's recipe does: whatever starts `derm` can name it.
"""

import dataclasses

from feature_store.config import LayoutConfig
from jobs import recipes
from jobs.recipes import Recipe
from models.derm.config import DermConfig, LossConfig
from models.nn.config import DhenConfig
from simulator.config import ClickConfig, WorldConfig

# How a command is told of it.
BRIEF = f"{__file__}:build"
# About 1,200 events a day, in which everything is frequent; a day of `toy` has seven times as many.
WORLD = WorldConfig(
    users=300,
    pins=120,
    advertisers=12,
    content_dim=32,
    days=40,
    churn=0.04,
    block_users=100,
    click=ClickConfig(bias=(-3.5, -3.5, -3.5)),
)


def build() -> Recipe:
    """The recipe `toy` on the small world, with a model of 32 dimensions and fewer files a day."""
    model = DermConfig(
        tower=DhenConfig(token_dim=8, num_tokens=4), loss=LossConfig(sketch_width=2**10)
    )
    return dataclasses.replace(
        recipes.toy(),
        name="brief",
        simulation=WORLD,
        model=model,
        layout=LayoutConfig(user_buckets=4, pin_buckets=2),
    )
