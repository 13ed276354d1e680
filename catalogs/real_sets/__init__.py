"""Catalogues of real data, one module for each kind of sensor."""
