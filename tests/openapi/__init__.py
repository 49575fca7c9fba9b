"""Does the service keep its document? ``make openapi`` asks schemathesis."""
