"""Tables and figures that compare machines."""
