"""Bodies of the assets, one module a stage of the walk: typed inputs, one core call, typed output, report."""
