"""Frequentist inference on a likelihood ratio: fits, test statistics, toys, regions and their coverage."""
