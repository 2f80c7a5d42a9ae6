"""The one place that builds the parts and connects them; everything above it only calls."""
