"""From images to volumes: series, stacks, geometry, masks, arrays for networks."""
