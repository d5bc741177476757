"""Corpora, crops, shards and the order of samples."""
