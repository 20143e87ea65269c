"""The port of evaluating: processes that can be killed."""
