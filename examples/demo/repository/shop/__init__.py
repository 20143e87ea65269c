"""A small shop: the sample repository of Kapelle's demo."""
