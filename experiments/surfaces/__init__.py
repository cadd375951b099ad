"""One ranker for all surfaces against one for each: on markets, part by part."""
