"""For tests of Kapelle and of its plug-ins: conformance suites, fakes, factories, a clock to move."""
