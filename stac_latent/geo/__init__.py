"""Places and times: CRSs, boxes and geometries across 180 degrees, extents of Items."""
