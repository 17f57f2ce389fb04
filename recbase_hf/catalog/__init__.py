"""Items with their semantic IDs: built from a table, changed as items come and go, kept on disk."""

from recbase_hf.catalog.changes import CatalogDiff, DriftReport
from recbase_hf.catalog.collisions import CollisionReport
from recbase_hf.catalog.item_catalog import ItemCatalog

__all__ = ["CatalogDiff", "CollisionReport", "DriftReport", "ItemCatalog"]
