"""One model, one engine, one flat vector: what a site and a coordinator both do to weights."""
