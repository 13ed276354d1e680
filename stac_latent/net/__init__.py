"""Addresses read over the network: servers, object stores, and the disk cache of what was read."""
