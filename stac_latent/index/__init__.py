"""Similar places: searching published vectors by vector, place, Item, chip or area."""
