"""Does the service keep its document? ``make conformance`` asks schemathesis."""
