"""Catalogues to STAC APIs and object stores."""
