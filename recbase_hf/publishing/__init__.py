"""From a folder to a repository on the Hub: what it holds, what may not leave, its card, and one commit."""

from recbase_hf.publishing.push import Push, push_folder
from recbase_hf.publishing.write_card import CardOptions, completed_card, untrained_card, write_card

__all__ = ["CardOptions", "Push", "completed_card", "push_folder", "untrained_card", "write_card"]
