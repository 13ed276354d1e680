"""The verb ``search``: items by place, time, space, rate and measured error, in any kind of catalogue."""
