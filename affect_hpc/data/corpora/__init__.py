"""Corpora: what each gives to be put into shards (source.py is the contract)."""
