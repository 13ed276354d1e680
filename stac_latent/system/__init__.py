"""Files, locks, links and settings of the machine."""
