"""The upstream model: three towers, two losses."""
