"""Pages and figures of fitted laws."""
