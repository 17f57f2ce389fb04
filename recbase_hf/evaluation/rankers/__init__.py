"""What RecBase is compared with: rankers from chance to sequence models that are trained on the target set."""
