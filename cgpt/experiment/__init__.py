"""From YAML files to a plan: read, checked, varied, and made into runs with ids."""
