"""Random worlds: everything about each drawn from its seed, run through bad weather and then held to its promises."""
