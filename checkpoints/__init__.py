"""Bundles that come with the package, each a folder of this one: `RecBaseScorer.from_pretrained("recbase-mini")`."""
