"""Fitting quantizers: from the item vectors of some domains to a `Quantizer` that makes semantic IDs."""
