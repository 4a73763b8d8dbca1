"""The hosts: where workers run, and what runs in them."""
